import dataclasses

from emsedit_jax.data.checks import borrowed, conflicts, lacking, usable
from emsedit_jax.data.faults import Fault
from tests.data.facts import record


def test_rows_that_the_model_cannot_take_are_left_out_as_a_whole(letters):
    records = [
        record(0),
        record(1, prompt="!"),
        record(2, answer="!", equiv=("!",)),
        record(3, unrel=("e", "abcdefg")),
        dataclasses.replace(record(4), source="eval.json row 4 fact 0", parts=2),
        dataclasses.replace(record(4, equiv=("abcdefg",)), source="eval.json row 4 fact 1", parts=2),
        record(5, equiv=()),
        record(44),
    ]
    rival = dataclasses.replace(records[6].edit, versus="abcdef")
    records[6] = dataclasses.replace(records[6], edit=rival)
    good, faults = usable(records, letters, 7)
    assert good == [records[0], records[7]]
    assert faults == [
        Fault("eval.json row 1 (edit)", "the prompt '!' tokenises to nothing"),
        Fault("eval.json row 2 (edit)", "the answer '!' tokenises to nothing"),
        Fault("eval.json row 5 (edit)", "prompt and the answer to be beaten take 8 tokens, the model takes 7"),
        Fault("eval.json row 2 (equiv)", "the prompt '!' tokenises to nothing"),
        Fault("eval.json row 4 fact 1 (equiv)", "prompt and answer take 10 tokens, the model takes 7"),
        Fault("eval.json row 3 (unrel)", "prompt and answer take 8 tokens, the model takes 7"),
    ]
    assert usable(records, letters, None)[0] == [records[0], *records[3:]]


def test_contradictions_are_named_by_row():
    records = [record(0), record(3, prompt="x", answer="a"), record(9, prompt="x", answer="b"), record(10, prompt="y")]
    assert conflicts(records) == ("rows 3 and 9 answer 'x' differently",)
    assert conflicts([records[1], records[1], record(11, prompt="x", answer="a")]) == ()
    part = dataclasses.replace(records[2], source="eval.json row 9 fact 2", parts=3)
    assert conflicts([records[1], part, record(12, prompt="x", answer="c")]) == (
        "row 3, row 9 fact 2 and row 12 answer 'x' differently",
    )


def test_a_long_prompt_is_told_by_its_beginning():
    def told(prompt):
        return conflicts([record(3, prompt=prompt, answer="a"), record(9, prompt=prompt, answer="b")])[0]

    assert told("x" * 60) == f"rows 3 and 9 answer '{'x' * 60}' differently"
    assert told("x" * 61) == f"rows 3 and 9 answer '{'x' * 60}...' differently"


def test_borrowed_prompts_are_counted_by_kind():
    one = dataclasses.replace(record(0), borrowed=("equiv", "unrel"))
    other = dataclasses.replace(record(1), borrowed=("unrel",))
    assert borrowed([one, record(2), other]) == (
        "1 fact without a paraphrase: the edited prompt stands in",
        "2 facts without an unrelated prompt: the edited prompt stands in",
    )
    assert borrowed([record(2)]) == ()


def test_the_first_batch_that_lacks_a_kind_is_found():
    full, bare, other = record(0), record(1, unrel=()), record(2, unrel=())
    assert lacking([[full, bare], [bare, full]], "unrel") is None
    assert lacking([[full, bare], [other, bare]], "unrel") == other
    assert lacking([[bare, other]], "equiv") is None
