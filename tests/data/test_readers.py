import copy
import json
from pathlib import Path

import numpy as np
import pytest

from emsedit_jax.data.records import READERS, Cue, EditRecord, load
from emsedit_jax.errors import InputError

RECORDED = Path(__file__).parents[1] / "golden/data"

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
TRAINED = {
    "subject": "Emma",
    "prompt": "The author of Emma is",
    "rephrase_prompt": "Emma was written by",
    "target_new": "Goethe",
    "locality_prompt": "The hero of Emma is",
    "locality_ground_truth": "Mr Knightley",
}
RIPPLE = {
    "subject": "Emma",
    "prompt": "The author of Emma is",
    "target_new": "Goethe",
    "Subject_Aliasing": [
        {"prompt": "", "targets": ["Goethe"]},
        {"prompt": "The author of Emma (novel) is", "targets": []},
        {"prompt": "later", "targets": ["Goethe"]},
    ],
    "Relation_Specificity": [
        {"prompt": " ", "targets": ["no prompt"]},
        {"prompt": "no targets", "targets": []},
        {"prompt": "The hero of Emma is", "targets": ["", " \t", " Mr Knightley", "Knightley"]},
        {"prompt": "later", "targets": ["too late"]},
    ],
}
FEVER = {
    "prompt": "Emma is by Jane Austen.",
    "equiv_prompt": ["Claim: Emma is by Jane Austen.", "Is Emma by Jane Austen?", "Jane Austen wrote Emma."],
    "unrel_prompt": "Rome is a river.",
    "alt": "REFUTES",
    "unrel_ans": "REFUTES",
}
EDIT = Cue("The author of Emma is", "Goethe")


def changed(row, path, value):
    """The row with one field, `"a.b"`, set to another value, or left out where that is `...`."""
    row = copy.deepcopy(row)
    *outer, last = path.split(".")
    inner = row
    for name in outer:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return row


# ---------------------------------------------------------------------------------------------- counterfact


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


# ---------------------------------------------------------------------------------------------- ripple_effect


@pytest.mark.parametrize("role", ["train", "eval"])
def test_a_ripple_row_is_read_by_its_own_form_whatever_the_role(write, role):
    trained, evaluated = load("ripple_effect", write([TRAINED, RIPPLE]), role=role)
    assert trained == EditRecord(
        edit=EDIT,
        equiv=(Cue("Emma was written by", "Goethe"),),
        unrel=(Cue("The hero of Emma is", "Mr Knightley"),),
        subject="Emma",
        source="facts.json row 0",
    )
    assert evaluated == EditRecord(
        edit=EDIT,
        equiv=(Cue("The author of Emma (novel) is", "Goethe"),),
        unrel=(Cue("The hero of Emma is", " Mr Knightley"),),
        subject="Emma",
        source="facts.json row 1",
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("Subject_Aliasing", [], {"equiv": EDIT}),
        ("Subject_Aliasing", ..., {"equiv": EDIT}),
        ("Subject_Aliasing", [{"prompt": ""}], {"equiv": EDIT}),
        ("Relation_Specificity", ..., {"unrel": EDIT}),
        ("Relation_Specificity", [{"prompt": "", "targets": ["a"]}], {"unrel": EDIT}),
        ("Relation_Specificity", [{"prompt": "p", "targets": []}], {"unrel": EDIT}),
        # blank targets: the prompt is taken all the same, and no later item
        (
            "Relation_Specificity",
            [{"prompt": "p", "targets": ["", " "]}, {"prompt": "q", "targets": ["a"]}],
            {"unrel": Cue("p", "Goethe")},
        ),
    ],
)
def test_what_a_ripple_row_has_none_of_the_edit_stands_for(write, field, value, expected):
    (record,) = load("ripple_effect", write([changed(RIPPLE, field, value)]), role="eval")
    equiv, unrel = Cue("The author of Emma (novel) is", "Goethe"), Cue("The hero of Emma is", " Mr Knightley")
    assert record.edit == EDIT
    assert {"equiv": record.equiv, "unrel": record.unrel} == {
        kind: (cue,) for kind, cue in ({"equiv": equiv, "unrel": unrel} | expected).items()
    }


# ---------------------------------------------------------------------------------------------- fever


def test_fever_gives_the_edit_and_its_paraphrase_the_flipped_verdict(write):
    (record,) = load("fever", write([changed(FEVER, "unrel_ans", "SUPPORTS")]), role="eval")
    assert record.edit == Cue("Emma is by Jane Austen.", "REFUTES")
    assert (record.equiv[0].prompt in FEVER["equiv_prompt"], record.equiv[0].answer) == (True, "REFUTES")
    assert record.unrel == (Cue("Rome is a river.", "SUPPORTS"),)
    assert (len(record.equiv), record.subject) == (1, "")


def test_a_paraphrase_is_drawn_by_seed_and_row_number_alone(write):
    path = write([FEVER] * 300)

    def drawn(**choice):
        return [FEVER["equiv_prompt"].index(one.equiv[0].prompt) for one in load("fever", path, role="eval", **choice)]

    all_rows = drawn(seed=7)
    assert all_rows == [int(np.random.default_rng((7, row)).integers(3)) for row in range(300)]
    assert np.bincount(all_rows).min() > 70  # each of the three about a hundred times
    assert drawn(seed=7, rows=(40, 60), limit=9) == all_rows[40:49]
    assert drawn() == drawn(seed=0) != all_rows
    with pytest.raises(InputError, match="A seed is 0 or larger, not -1"):
        drawn(seed=-1)


# ---------------------------------------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("name", "row", "path", "value", "says"),
    [
        ("counterfact", COUNTERFACT, "requested_rewrite", ..., "field 'requested_rewrite' is missing"),
        ("counterfact", COUNTERFACT, "requested_rewrite", "text", "requested_rewrite is text, not an object"),
        (
            "counterfact",
            COUNTERFACT,
            "requested_rewrite.prompt",
            "Emma, created by",
            "field 'requested_rewrite.prompt' does not hold {} once, in the subject's place",
        ),
        ("counterfact", COUNTERFACT, "requested_rewrite.prompt", "{} and {}", "does not hold {} once"),
        ("counterfact", COUNTERFACT, "requested_rewrite.subject", " ", "field 'requested_rewrite.subject' is empty"),
        (
            "counterfact",
            COUNTERFACT,
            "requested_rewrite.target_new",
            "Goethe",
            "requested_rewrite.target_new is text, not an object",
        ),
        (
            "counterfact",
            COUNTERFACT,
            "requested_rewrite.target_true.str",
            None,
            "field 'requested_rewrite.target_true.str' is null, not text",
        ),
        ("counterfact", COUNTERFACT, "paraphrase_prompts", [], "field 'paraphrase_prompts' is an empty list"),
        ("counterfact", COUNTERFACT, "neighborhood_prompts", "p", "field 'neighborhood_prompts' is text, not a list"),
        ("counterfact", COUNTERFACT, "neighborhood_prompts", ["p", ""], "field 'neighborhood_prompts[1]' is empty"),
        ("ripple_effect", TRAINED, "target_new", "", "field 'target_new' is empty"),
        ("ripple_effect", TRAINED, "rephrase_prompt", "", "field 'rephrase_prompt' is empty"),
        ("ripple_effect", TRAINED, "rephrase_prompt", ..., "field 'rephrase_prompt' is missing"),
        ("ripple_effect", TRAINED, "locality_prompt", ..., "field 'locality_prompt' is missing"),
        ("ripple_effect", RIPPLE, "subject", ..., "field 'subject' is missing"),
        ("ripple_effect", RIPPLE, "Subject_Aliasing", {}, "field 'Subject_Aliasing' is an object, not a list"),
        ("ripple_effect", RIPPLE, "Subject_Aliasing", ["p"], "Subject_Aliasing[0] is text, not an object"),
        (
            "ripple_effect",
            RIPPLE,
            "Relation_Specificity",
            [{"prompt": ""}, {"prompt": 3}],
            "field 'Relation_Specificity[1].prompt' is a number, not text",
        ),
        (
            "ripple_effect",
            RIPPLE,
            "Relation_Specificity",
            [{"prompt": "p", "target": []}],
            "field 'Relation_Specificity[0].targets' is missing (Did you mean 'target'?)",
        ),
        (
            "ripple_effect",
            RIPPLE,
            "Relation_Specificity",
            [{"prompt": "p", "targets": ["", None]}],
            "field 'Relation_Specificity[0].targets[1]' is null, not text",
        ),
        ("fever", FEVER, "alt", ..., "field 'alt' is missing"),
        ("fever", FEVER, "unrel_ans", True, "field 'unrel_ans' is true or false, not text"),
        ("fever", FEVER, "equiv_prompt", "one", "field 'equiv_prompt' is text, not a list"),
        ("fever", FEVER, "equiv_prompt", [], "field 'equiv_prompt' is an empty list"),
        ("fever", FEVER, "equiv_prompt", ["a", "b", " "], "field 'equiv_prompt[2]' is empty"),  # drawn or not
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, name, row, path, value, says):
    file = write([row, changed(row, path, value)])
    with pytest.raises(InputError) as caught:
        load(name, file, role="eval")
    message = str(caught.value)
    assert message.startswith(f"{file}: 1 bad row (counting from 0): row 1: ")
    assert says in message
    assert message.endswith(f"Correct the file, or the data set's name ({name}).")
    assert "\n" not in message


def test_only_what_is_taken_to_train_on_is_looked_at(write):
    path = write([changed(COUNTERFACT, "neighborhood_prompts", ["p", ""])])
    assert load("counterfact", path, role="train")[0].unrel[0].prompt == "p"
    with pytest.raises(InputError, match=r"'neighborhood_prompts\[0\]' is empty"):
        load("counterfact", write([changed(COUNTERFACT, "neighborhood_prompts", [" ", "q"])]), role="train")


# ---------------------------------------------------------------------------------------------- recorded files


@pytest.mark.parametrize("name", [name for name in READERS if name != "worldfacts"])
def test_the_recorded_files_are_read_in_both_roles(name):
    files = sorted((RECORDED / name).glob("*.json"))
    assert len(files) == 2
    for file in files:
        rows = json.loads(file.read_text(encoding="utf-8"))
        for role in ("train", "eval"):
            records = load(name, file, role=role)
            assert [record.source for record in records] == [f"{file.name} row {row}" for row in range(len(rows))]
            compares = {cue.versus is not None for record in records for cue in (record.edit, *record.equiv)}
            assert compares == {name == "counterfact"}


def test_a_recorded_ripple_row_is_read_as_written():
    record = load("ripple_effect", RECORDED / "ripple_effect/ripple_effect_eval.json", role="eval", limit=1)[0]
    assert record.edit == Cue("The author of Peer Gynt is", "William Shakespeare")
    assert record.equiv == (Cue("The writer of Peer Gynt was", "William Shakespeare"),)
    assert record.unrel == (Cue("In formulas fluorine is written", "F"),)  # the first prompt has no targets
