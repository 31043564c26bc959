import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from emsedit_jax.data.cues import Asked
from emsedit_jax.data.records import Cue, EditRecord, load
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
RIPPLE_ASKS = (
    Asked("Subject_Aliasing", "later", ("Goethe",)),
    Asked("Relation_Specificity", "The hero of Emma is", (" Mr Knightley", "Knightley")),
    Asked("Relation_Specificity", "later", ("too late",)),
)


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
        asked=RIPPLE_ASKS if role == "eval" else (),
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
    assert record.borrowed == tuple(kind for kind, cue in expected.items() if cue is EDIT)


def test_a_ripple_row_with_nothing_but_its_edit_borrows_both_kinds(write):
    (record,) = load("ripple_effect", write([{"prompt": "p", "target_new": "a", "subject": "s"}]), role="eval")
    cue = Cue("p", "a")
    assert (record.equiv, record.unrel, record.borrowed, record.asked) == ((cue,), (cue,), ("equiv", "unrel"), ())


def test_all_items_of_all_ripple_criteria_are_asked_in_evaluation(write):
    criteria = (
        "Logical_Generalization",
        "Compositionality_I",
        "Compositionality_II",
        "Subject_Aliasing",
        "Relation_Specificity",
        "Forgetfulness",
    )
    items = [
        {"prompt": "p", "targets": ["", "a", "b"]},
        {"prompt": " ", "targets": ["c"]},
        {"prompt": "q", "targets": [""]},
    ]
    row = {"prompt": "p", "target_new": "a", "subject": "s"} | {name: items for name in reversed(criteria)}
    (record,) = load("ripple_effect", write([row]), role="eval")
    assert record.asked == tuple(Asked(name, "p", ("a", "b")) for name in criteria)
    assert load("ripple_effect", write([row]), role="train") == [dataclasses.replace(record, asked=())]


# ---------------------------------------------------------------------------------------------- mquake


MQUAKE = {
    "requested_rewrite": [
        {
            "prompt": "{} wrote",
            "subject": "Austen",
            "target_new": {"str": "Faust"},
            "question": "What did Austen write?",
        },
        {"prompt": "Faust is in {}", "subject": "x", "target_new": {"str": "Latin"}, "question": "What is Faust in?"},
    ],
    "questions": ["In what language did Austen write?", "Austen's language?"],
    "new_answer": "Latin",
    "new_answer_alias": ["", "la"],
    "new_single_hops": [
        {"question": "What did Austen write?", "answer": "Faust", "answer_alias": []},
        {"question": "What is Faust in?", "answer": "Latin", "answer_alias": ["la"]},
    ],
}


def test_an_mquake_row_is_several_facts_whose_questions_hang_on_the_last(write):
    one, other = load("mquake", write([MQUAKE]), role="eval")
    assert one == EditRecord(
        edit=Cue("Austen wrote", "Faust"),
        equiv=(Cue("What did Austen write?", "Faust"),),
        unrel=(),
        subject="Austen",
        source="facts.json row 0 fact 0",
        parts=2,
    )
    assert other == EditRecord(
        edit=Cue("Faust is in x", "Latin"),
        equiv=(Cue("What is Faust in?", "Latin"),),
        unrel=(),
        subject="x",
        source="facts.json row 0 fact 1",
        asked=(
            Asked("multi_hop", "In what language did Austen write?", ("Latin", "la")),
            Asked("multi_hop", "Austen's language?", ("Latin", "la")),
            Asked("single_hop", "What did Austen write?", ("Faust",)),
            Asked("single_hop", "What is Faust in?", ("Latin", "la")),
        ),
        parts=2,
    )
    assert one.row == other.row == "facts.json row 0"
    assert load("mquake", write([MQUAKE]), role="train") == [one, dataclasses.replace(other, asked=())]


def test_an_mquake_row_of_one_fact_is_called_as_any_other(write):
    row = changed(MQUAKE, "requested_rewrite", MQUAKE["requested_rewrite"][:1])
    (record,) = load("mquake", write([row]), role="eval")
    assert (record.source, record.row, record.parts) == ("facts.json row 0", "facts.json row 0", 1)
    assert len(record.asked) == 4


def test_rows_and_limits_count_rows_and_not_their_facts(write):
    path = write([MQUAKE] * 4)
    sources = [record.source for record in load("mquake", path, role="eval", rows=(1, None), limit=2)]
    assert sources == [f"facts.json row {row} fact {fact}" for row in (1, 2) for fact in (0, 1)]


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
        ("ripple_effect", RIPPLE, "Forgetfulness", [{"prompt": "p"}], "field 'Forgetfulness[0].targets' is missing"),
        ("ripple_effect", RIPPLE, "Compositionality_II", "p", "field 'Compositionality_II' is text, not a list"),
        ("mquake", MQUAKE, "requested_rewrite", [], "field 'requested_rewrite' is an empty list"),
        ("mquake", MQUAKE, "requested_rewrite", {}, "field 'requested_rewrite' is an object, not a list"),
        ("mquake", MQUAKE, "requested_rewrite", [{"prompt": "{}"}], "field 'requested_rewrite[0].subject' is missing"),
        (
            "mquake",
            MQUAKE,
            "requested_rewrite",
            [{"prompt": "{}", "subject": "s", "target_new": {"str": "a"}}],
            "field 'requested_rewrite[0].question' is missing",
        ),
        ("mquake", MQUAKE, "questions", [], "field 'questions' is an empty list"),
        ("mquake", MQUAKE, "new_answer", "", "field 'new_answer' is empty"),
        ("mquake", MQUAKE, "new_answer_alias", [3], "field 'new_answer_alias[0]' is a number, not text"),
        ("mquake", MQUAKE, "new_single_hops", [{"question": "q"}], "field 'new_single_hops[0].answer' is missing"),
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
    assert f". Correct the file, or the data set's name ({name}), or leave such rows out with --config." in message
    assert "\n" not in message


def test_only_what_is_taken_to_train_on_is_looked_at(write):
    path = write([changed(COUNTERFACT, "neighborhood_prompts", ["p", ""])])
    assert load("counterfact", path, role="train")[0].unrel[0].prompt == "p"
    with pytest.raises(InputError, match=r"'neighborhood_prompts\[0\]' is empty"):
        load("counterfact", write([changed(COUNTERFACT, "neighborhood_prompts", [" ", "q"])]), role="train")


# ---------------------------------------------------------------------------------------------- recorded files


@pytest.mark.parametrize("name", [path.name for path in sorted(RECORDED.iterdir())])
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
