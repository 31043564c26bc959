import numpy as np
import pytest

from emsedit_jax.measure.labels import matthews, matthews_drawn, weighted_f1, weighted_f1_drawn
from emsedit_jax.measure.scores import measure

#   answer   0  1
TABLE = [  # label
    [3, 1],  # 0
    [2, 4],  # 1
]
F1 = (4 * (2 * 3 / (2 * 3 + 1 + 2)) + 6 * (2 * 4 / (2 * 4 + 1 + 2))) / 10  # of 0 it is 6/9, of 1 it is 8/11
MCC = (4 * 3 - 1 * 2) / np.sqrt((4 + 1) * (4 + 2) * (3 + 1) * (3 + 2))


def pairs(table, first=0):
    found = [[m + first, n + first] for m, row in enumerate(table) for n, count in enumerate(row) for _ in range(count)]
    return np.array(found, np.float64)


def test_metrics_of_a_confusion_matrix_by_hand():
    found = pairs(TABLE)
    assert measure("rte.f1").total(found) == pytest.approx(100 * F1)
    assert measure("rte.mcc").total(found) == pytest.approx(MCC)
    right = (found[:, 0] == found[:, 1]).astype(np.float64)
    assert measure("rte.accuracy").total(right) == pytest.approx(70)


@pytest.mark.parametrize(
    ("answers", "f1", "mcc"),
    [
        ([0, 0, 1, 1], 100, 1),
        ([1, 1, 0, 0], 0, -1),
        ([1, 1, 1, 1], 100 / 3, 0),  # of 0 nothing, of 1 2/3
        ([-1, -1, -1, -1], 0, 0),
        ([0, -1, 1, 1], 100 * (2 / 3 + 1) / 2, None),
    ],
)
def test_perfect_and_useless_answers(answers, f1, mcc):
    found = np.array([[0, 0, 1, 1], answers], np.float64).T
    assert weighted_f1(found) == pytest.approx(f1)
    assert weighted_f1_drawn(found) == pytest.approx(f1)
    if mcc is not None:
        assert (matthews(found), matthews_drawn(found)) == pytest.approx((mcc, mcc))


def test_no_answer_counts_against_a_model():
    complete, lacking = pairs(TABLE), pairs(TABLE)
    lacking[0, 1] = -1  # it was right
    assert weighted_f1(lacking) < weighted_f1(complete)
    assert matthews(lacking) < matthews(complete)


@pytest.mark.parametrize("labels", [1, 2, 4])
def test_what_is_drawn_is_measured_as_by_scikit_learn(labels):
    rng = np.random.default_rng(labels)
    for items in (1, 3, 20):
        found = np.stack([rng.integers(labels, size=items), rng.integers(-1, labels, size=items)], axis=1) * 1.0
        assert weighted_f1_drawn(found) == pytest.approx(weighted_f1(found))
        assert matthews_drawn(found) == pytest.approx(matthews(found))


def test_of_a_single_value_there_is_no_correlation():
    found = np.zeros((3, 2))
    assert (weighted_f1(found), matthews(found), matthews_drawn(found)) == (100, 0, 0)


def test_no_items_give_no_number():
    assert np.isnan([weighted_f1(np.zeros((0, 2))), matthews(np.zeros((0, 2)))]).all()
