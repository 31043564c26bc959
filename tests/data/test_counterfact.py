import pytest

from emsedit_jax.data.records import Cue, EditRecord, load
from tests.data.rows import changed, refused_field
from tests.refusals import refused

COUNTERFACT = {
    "case_id": 18,
    "requested_rewrite": {
        "prompt": "{}, created by",
        "subject": "Emma",
        "target_new": {"str": "Goethe"},
        "target_true": {"str": "Jane Austen"},
    },
    "paraphrase_prompts": ["Rain fell. Emma is by", "Emma was written by"],
    "neighborhood_prompts": ["Persuasion is by", "Sanditon, created by", "Lady Susan is by"],
}


def test_counterfact_evaluates_all_prompts_and_compares_new_with_true_and_true_with_new(write):
    assert load("counterfact", write([COUNTERFACT], "multi_counterfact_train.json"), role="eval") == [
        EditRecord(
            edit=Cue("Emma, created by", "Goethe", versus="Jane Austen"),
            equiv=(
                Cue("Rain fell. Emma is by", "Goethe", versus="Jane Austen"),
                Cue("Emma was written by", "Goethe", versus="Jane Austen"),
            ),
            unrel=tuple(Cue(prompt, "Jane Austen", versus="Goethe") for prompt in COUNTERFACT["neighborhood_prompts"]),
            subject="Emma",
            source="multi_counterfact_train.json row 0",
        )
    ]


def test_counterfact_trains_on_the_first_paraphrase_and_the_first_neighbour(write):
    (evaluated,) = load("counterfact", write([COUNTERFACT]), role="eval")
    (trained,) = load("counterfact", write([COUNTERFACT], "multi_counterfact_eval.json"), role="train")
    assert trained.edit == evaluated.edit
    assert (trained.equiv, trained.unrel) == (evaluated.equiv[:1], evaluated.unrel[:1])


def test_a_subject_is_put_in_as_it_is(write):
    (record,) = load("counterfact", write([changed(COUNTERFACT, "requested_rewrite.subject", "{x}")]), role="train")
    assert record.edit.prompt == "{x}, created by"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("requested_rewrite", ..., "field 'requested_rewrite' is missing"),
        ("requested_rewrite", "text", "requested_rewrite is text, not an object"),
        (
            "requested_rewrite.prompt",
            "Emma, created by",
            "field 'requested_rewrite.prompt' does not hold {} once, in the subject's place",
        ),
        ("requested_rewrite.prompt", "{} and {}", "does not hold {} once"),
        ("requested_rewrite.subject", " ", "field 'requested_rewrite.subject' is empty"),
        (
            "requested_rewrite.target_new",
            "Goethe",
            "requested_rewrite.target_new is text, not an object",
        ),
        (
            "requested_rewrite.target_true.str",
            None,
            "field 'requested_rewrite.target_true.str' is null, not text",
        ),
        ("paraphrase_prompts", [], "field 'paraphrase_prompts' is an empty list"),
        ("neighborhood_prompts", "p", "field 'neighborhood_prompts' is text, not a list"),
        ("neighborhood_prompts", ["p", ""], "field 'neighborhood_prompts[1]' is empty"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, path, value, says):
    refused_field(write, "counterfact", COUNTERFACT, path, value, says)


def test_only_what_is_taken_to_train_on_is_looked_at(write):
    path = write([changed(COUNTERFACT, "neighborhood_prompts", ["p", ""])])
    assert load("counterfact", path, role="train")[0].unrel[0].prompt == "p"
    with refused("'neighborhood_prompts[0]' is empty"):
        load("counterfact", write([changed(COUNTERFACT, "neighborhood_prompts", [" ", "q"])]), role="train")
