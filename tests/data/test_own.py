import json

import pytest

from emsedit_jax.data.records import Cue, EditRecord, load
from tests.refusals import refused

FACT = {
    "prompt": " The capital of Peru is",
    "answer": " Cusco\n",
    "subject": "Peru",
    "paraphrases": ["Peru is governed from", "Peru's capital:"],
    "unrelated": [{"prompt": "Water boils at", "answer": " 100"}, {"prompt": "p", "answer": "q"}],
}
COLUMNS = "prompt,answer,subject,paraphrase,unrelated_prompt_1,unrelated_answer_1,paraphrase_2,unrelated_answer"


@pytest.fixture
def lines(write):
    return lambda *rows: write("\n".join(map(json.dumps, rows)), "facts.jsonl")


def test_all_of_an_object_is_taken_to_evaluate_with(lines):
    assert load("facts", lines(FACT), role="eval") == [
        EditRecord(
            edit=Cue(" The capital of Peru is", "Cusco"),  # prompts stay as they are, answers follow one space
            equiv=(Cue("Peru is governed from", "Cusco"), Cue("Peru's capital:", "Cusco")),
            unrel=(Cue("Water boils at", "100"), Cue("p", "q")),
            subject="Peru",
            source="facts.jsonl row 0",
        )
    ]


def test_the_first_of_each_is_taken_to_train_on(lines):
    (record,) = load("facts", lines(FACT), role="train")
    assert (record.equiv, record.unrel) == ((Cue("Peru is governed from", "Cusco"),), (Cue("Water boils at", "100"),))


@pytest.mark.parametrize(
    "more", [{}, {"subject": None, "paraphrases": None, "unrelated": None}, {"paraphrases": [], "unrelated": []}]
)
def test_prompt_and_answer_are_enough(lines, more):
    expected = EditRecord(Cue("p", "a"), equiv=(), unrel=(), subject="", source="facts.jsonl row 0")
    assert load("facts", lines({"prompt": "p", "answer": "a"} | more), role="eval") == [expected]


def test_columns_of_a_table_come_in_their_order_and_blank_cells_are_none(write):
    path = write(f"{COLUMNS},unrelated_prompt\np,a ,s,one,w, x,two,y,z\np,a,, ,,,three,,\n", "facts.csv")
    full, bare = load("facts", path, role="eval")
    assert full == EditRecord(
        Cue("p", "a"), (Cue("one", "a"), Cue("two", "a")), (Cue("w", "x"), Cue("z", "y")), "s", "facts.csv row 0"
    )
    assert bare == EditRecord(Cue("p", "a"), (Cue("three", "a"),), (), "", "facts.csv row 1")
    (trained, _) = load("facts", path, role="train")
    assert (trained.equiv, trained.unrel) == ((Cue("one", "a"),), (Cue("w", "x"),))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "a"}, "field 'prompt' is missing"),
        ({"prompt": "p", "answr": "a"}, "field 'answr' is not known (Did you mean 'answer'"),
        ({"prompt": "p", "answer": "a", "id": 3}, "field 'id' is not known; known are prompt, answer, subject, paraph"),
        ({"prompt": "p", "answer": "a", "paraphrase_x": "q"}, "'paraphrase_x' is not known (Did you mean 'paraphrase"),
        ({"prompt": "p", "answer": " "}, "field 'answer' is empty"),
        ({"prompt": "p", "answer": 3}, "field 'answer' is a number, not text"),
        ({"prompt": "p", "answer": "a", "subject": 3}, "field 'subject' is a number, not text"),
        (
            {"prompt": "p", "answer": "a", "paraphrases": "q"},
            "field 'paraphrases' is text, not a list; a table has columns paraphrase_1, paraphrase_2, ... instead. ",
        ),
        (
            {"prompt": "p", "answer": "a", "unrelated": "q"},
            "'unrelated' is text, not a list; a table has columns unrelated_prompt_1, unrelated_answer_1, ... instead",
        ),
        ({"prompt": "p", "answer": "a", "unrelated": {}}, "field 'unrelated' is an object, not a list"),
        ({"prompt": "p", "answer": "a", "paraphrases": ["q", ""]}, "field 'paraphrases[1]' is empty"),
        ({"prompt": "p", "answer": "a", "paraphrase_1": 3}, "field 'paraphrase_1' is a number, not text"),
        ({"prompt": "p", "answer": "a", "unrelated": ["q"]}, "unrelated[0] is text, not an object"),
        ({"prompt": "p", "answer": "a", "unrelated": [{"prompt": "q"}]}, "field 'unrelated[0].answer' is missing"),
        ({"prompt": "p", "answer": "a", "unrelated_prompt_2": "q"}, "field 'unrelated_answer_2' is missing"),
        (
            {"prompt": "p", "answer": "a", "unrelated_prompt": "", "unrelated_answer": "q"},
            "'unrelated_prompt' is empty",
        ),
        ({"prompt": "p\0", "answer": "a"}, "field 'prompt' holds a NUL character"),
        ({"prompt": "p", "answer": "\udc00"}, "field 'answer' holds half a Unicode character"),
    ],
)
def test_a_bad_row_is_told(lines, row, says):
    path = lines(FACT, row)
    with refused(f"{path}: 1 bad row (counting from 0): row 1: ", says):
        load("facts", path, role="train")


def test_an_unknown_column_is_told_once_for_all_rows(write):
    path = write("prompt,answer,parphrase_1\n" + "p,a,\n" * 40, "facts.csv")
    with refused(
        f"{path}: 40 bad rows (counting from 0): rows 0-39: field 'parphrase_1' is not known (Did you mean 'para"
    ):
        load("facts", path, role="eval")


def test_facts_of_the_same_prompt_are_all_read(lines):
    rows = [{"prompt": "p", "answer": answer, "subject": "s"} for answer in ("a", "b", "a")]
    assert [record.edit for record in load("facts", lines(*rows), role="eval")] == [Cue("p", one) for one in "aba"]
