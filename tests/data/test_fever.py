import numpy as np
import pytest

from emsedit_jax.data.records import Cue, load
from tests.data.rows import changed, refused_field
from tests.refusals import refused

FEVER = {
    "prompt": "Emma is by Jane Austen.",
    "equiv_prompt": ["Claim: Emma is by Jane Austen.", "Is Emma by Jane Austen?", "Jane Austen wrote Emma."],
    "unrel_prompt": "Rome is a river.",
    "alt": "REFUTES",
    "unrel_ans": "REFUTES",
}


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
    with refused("A seed is 0 or larger, not -1"):
        drawn(seed=-1)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("alt", ..., "field 'alt' is missing"),
        ("unrel_ans", True, "field 'unrel_ans' is true or false, not text"),
        ("equiv_prompt", "one", "field 'equiv_prompt' is text, not a list"),
        ("equiv_prompt", [], "field 'equiv_prompt' is an empty list"),
        ("equiv_prompt", ["a", "b", " "], "field 'equiv_prompt[2]' is empty"),  # drawn or not
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, path, value, says):
    refused_field(write, "fever", FEVER, path, value, says)
