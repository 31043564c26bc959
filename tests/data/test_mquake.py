import dataclasses

import pytest

from emsedit_jax.data.cues import Asked
from emsedit_jax.data.records import Cue, EditRecord, load
from tests.data.rows import changed, refused_field

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


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("requested_rewrite", [], "field 'requested_rewrite' is an empty list"),
        ("requested_rewrite", {}, "field 'requested_rewrite' is an object, not a list"),
        ("requested_rewrite", [{"prompt": "{}"}], "field 'requested_rewrite[0].subject' is missing"),
        (
            "requested_rewrite",
            [{"prompt": "{}", "subject": "s", "target_new": {"str": "a"}}],
            "field 'requested_rewrite[0].question' is missing",
        ),
        ("questions", [], "field 'questions' is an empty list"),
        ("new_answer", "", "field 'new_answer' is empty"),
        ("new_answer_alias", [3], "field 'new_answer_alias[0]' is a number, not text"),
        ("new_single_hops", [{"question": "q"}], "field 'new_single_hops[0].answer' is missing"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, path, value, says):
    refused_field(write, "mquake", MQUAKE, path, value, says)
