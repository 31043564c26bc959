import re

from hypothesis import given
from hypothesis import strategies as st

from emsedit_jax.data.faults import Fault, by_row, listed, report, row_of


def test_equal_faults_are_told_together_with_what_stands_behind_the_row():
    faults = [
        Fault("row 5.json row 7 (edit)", "long"),
        Fault("row 5.json row 3 fact 1 (equiv)", "long"),
        Fault("row 5.json row 6 (edit)", "long"),
        Fault("row 5.json row 6 (edit)", "long"),
        Fault("row 5.json row 6 (equiv)", "empty"),
        Fault("elsewhere", "long"),
    ]
    assert report(faults) == (
        "4 bad rows (counting from 0): row 5.json rows 6-7 (edit): long; row 5.json row 3 fact 1 (equiv): long; "
        "row 5.json row 6 (equiv): empty; elsewhere: long"
    )
    assert report(faults[:1]) == "1 bad row (counting from 0): row 5.json row 7 (edit): long"
    assert by_row(faults, "x ") == (
        "x row 5.json row 7 (edit): long",
        "x row 5.json row 3 fact 1 (equiv): long",
        "x row 5.json row 6 (edit): long; row 5.json row 6 (equiv): empty",
        "x elsewhere: long",
    )


def test_the_row_of_a_source():
    assert row_of("a row 3.json row 12 fact 1 (edit)") == "a row 3.json row 12"
    assert row_of("hf:org/name:test row 3") == "hf:org/name:test row 3"
    assert row_of("question 3") == "question 3"


def test_rows_are_listed():
    assert listed(["a.json row 3", "a.json row 9"]) == "rows 3 and 9"
    assert listed(["a.json row 9", "a.json row 3", "a.json row 9", "a.json row 4"]) == "rows 9, 3 and 4"
    assert listed(["a.json row 3 fact 1", "a.json row 9"]) == "row 3 fact 1 and row 9"
    assert listed(["one", "other"]) == "one and other"


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["empty", "missing"])), min_size=1))
def test_every_bad_row_is_told_with_its_fault(pairs):
    words = report([Fault(f"row {row}", why) for row, why in pairs])
    head, told = words.split(" (counting from 0): ")
    assert head == f"{len({row for row, _ in pairs})} bad row{'s' * (len({row for row, _ in pairs}) > 1)}"
    found = set()
    for part in told.split("; "):
        match = re.fullmatch(r"rows? ([0-9, -]+): (empty|missing)", part)
        assert match
        for span in match[1].split(", "):
            first, _, last = span.partition("-")
            found |= {(row, match[2]) for row in range(int(first), int(last or first) + 1)}
    assert found == set(pairs)
