import numpy as np

from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.cues import Cue, EditRecord
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.run import scoring

CUE, ITEM = Cue("asked", "answered"), TokenItem((1,), (1,), 1)
COUNTS = [[1, 2], [0, 0]]  # paraphrases of the facts of two batches
SHARES = [
    {"ES": np.array([0.5, 1.0]), "GS": np.array([0.0, 1.0, 0.5]), "LS": np.zeros(0)},
    {"ES": np.array([0.0, 0.25]), "GS": np.zeros(0), "LS": np.zeros(0)},
]


def plan():
    drawn = [
        [
            EditRecord(edit=CUE, equiv=(CUE,) * count, unrel=(), subject="", source=f"row {2 * j + m}")
            for m, count in enumerate(batch)
        ]
        for j, batch in enumerate(COUNTS)
    ]
    items = {"edit": [[ITEM] * 2] * 2, "equiv": [[ITEM] * 3, []], "unrel": [[], []]}
    return EditPlan(np.zeros((2, 2), np.int32), {}, 1, "ans", drawn, items)


def test_batches_are_joined_without_kinds_that_nobody_asks():
    found = scoring.joined(plan(), SHARES)
    assert {name: score.values.tolist() for name, score in found.items()} == {
        "ES": [0.5, 1.0, 0.0, 0.25],
        "GS": [0.0, 1.0, 0.5],
    }
    assert found["GS"].items == ("row 0", "row 1 #0", "row 1 #1")
    assert scoring.joined(plan(), SHARES[:1])["ES"].items == ("row 0", "row 1")


def test_and_taken_apart_again():
    found = scoring.joined(plan(), SHARES)
    for j, shares in enumerate(SHARES):
        back = scoring.split(plan(), found, j)
        assert {name: values.tolist() for name, values in back.items()} == {
            name: values.tolist() for name, values in shares.items()
        }


def test_the_curve_has_a_value_for_each_batch_that_asks():
    found = scoring.by_batch(plan(), scoring.joined(plan(), SHARES))
    assert found["ES"] == [75.0, 12.5]
    assert found["GS"][0] == 50.0
    assert np.isnan(found["GS"][1])
    assert set(found) == {"ES", "GS"}
