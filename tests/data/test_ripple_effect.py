import dataclasses
from pathlib import Path

import pytest

from emsedit_jax.data.cues import Asked
from emsedit_jax.data.records import Cue, EditRecord, load
from tests.data.rows import changed, refused_field

RECORDED = Path(__file__).parents[1] / "golden/data"

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
EDIT = Cue("The author of Emma is", "Goethe")
RIPPLE_ASKS = (
    Asked("Subject_Aliasing", "later", ("Goethe",)),
    Asked("Relation_Specificity", "The hero of Emma is", (" Mr Knightley", "Knightley")),
    Asked("Relation_Specificity", "later", ("too late",)),
)


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


@pytest.mark.parametrize(
    ("row", "path", "value", "says"),
    [
        (TRAINED, "target_new", "", "field 'target_new' is empty"),
        (TRAINED, "rephrase_prompt", "", "field 'rephrase_prompt' is empty"),
        (TRAINED, "rephrase_prompt", ..., "field 'rephrase_prompt' is missing"),
        (TRAINED, "locality_prompt", ..., "field 'locality_prompt' is missing"),
        (RIPPLE, "subject", ..., "field 'subject' is missing"),
        (RIPPLE, "Subject_Aliasing", {}, "field 'Subject_Aliasing' is an object, not a list"),
        (RIPPLE, "Subject_Aliasing", ["p"], "Subject_Aliasing[0] is text, not an object"),
        (
            RIPPLE,
            "Relation_Specificity",
            [{"prompt": ""}, {"prompt": 3}],
            "field 'Relation_Specificity[1].prompt' is a number, not text",
        ),
        (
            RIPPLE,
            "Relation_Specificity",
            [{"prompt": "p", "target": []}],
            "field 'Relation_Specificity[0].targets' is missing (Did you mean 'target'?)",
        ),
        (
            RIPPLE,
            "Relation_Specificity",
            [{"prompt": "p", "targets": ["", None]}],
            "field 'Relation_Specificity[0].targets[1]' is null, not text",
        ),
        (RIPPLE, "Forgetfulness", [{"prompt": "p"}], "field 'Forgetfulness[0].targets' is missing"),
        (RIPPLE, "Compositionality_II", "p", "field 'Compositionality_II' is text, not a list"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, row, path, value, says):
    refused_field(write, "ripple_effect", row, path, value, says)


def test_a_recorded_ripple_row_is_read_as_written():
    record = load("ripple_effect", RECORDED / "ripple_effect/ripple_effect_eval.json", role="eval", limit=1)[0]
    assert record.edit == Cue("The author of Peer Gynt is", "William Shakespeare")
    assert record.equiv == (Cue("The writer of Peer Gynt was", "William Shakespeare"),)
    assert record.unrel == (Cue("In formulas fluorine is written", "F"),)  # the first prompt has no targets
