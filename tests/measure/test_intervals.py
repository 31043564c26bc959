import itertools

import numpy as np
import pytest

from emsedit_jax.measure.intervals import bootstrap, paired


def test_an_interval_of_shares_is_that_of_the_binomial():
    values = np.array([1.0] * 60 + [0.0] * 40)
    low, high = bootstrap(values)
    assert low == pytest.approx(0.6 - 1.96 * np.sqrt(0.24 / 100), abs=0.02)
    assert high == pytest.approx(0.6 + 1.96 * np.sqrt(0.24 / 100), abs=0.02)


def test_more_items_make_it_narrower_and_one_seed_gives_one_interval():
    rng = np.random.default_rng(1)
    few, many = rng.random(20), rng.random(2000)
    assert bootstrap(few) == bootstrap(few)
    assert bootstrap(few) != bootstrap(few, seed=1)
    assert np.diff(bootstrap(many))[0] < np.diff(bootstrap(few))[0] / 5


def test_intervals_of_nothing_and_of_equal_values():
    assert np.isnan(bootstrap([])).all()
    assert bootstrap([0.5]) == bootstrap([0.5] * 7) == (0.5, 0.5)


def test_the_p_value_is_that_of_all_sign_flips():
    first = np.array([0.0, 0.2, 0.1, 0.4, 0.0, 0.3, 0.3])
    second = np.array([0.5, 0.1, 0.4, 0.9, 0.2, 0.3, 0.7])
    found = paired(first, second)
    differences = second - first
    flips = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=7)]
    wanted = np.mean(np.array(flips) >= abs(differences.sum()) - 1e-9)
    assert found.difference == pytest.approx(differences.mean())
    assert found.p == pytest.approx(wanted, abs=0.01)
    assert found.low < found.difference < found.high


def test_pairs_that_do_not_differ_and_pairs_that_always_do():
    same = paired([0.1, 0.2], [0.1, 0.2])
    assert (same.difference, same.p) == (0.0, 1.0)
    better = paired(np.zeros(50), np.ones(50))
    assert better.difference == 1.0
    assert better.p < 0.001
    assert paired(np.ones(50), np.zeros(50)).difference == -1.0
    assert np.isnan(paired([], []).p)


def test_runs_of_different_size_cannot_be_paired():
    with pytest.raises(ValueError, match="2 and 1"):
        paired([1.0, 2.0], [1.0])
