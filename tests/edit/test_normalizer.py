import itertools

import jax
import numpy as np
import pytest

from emsedit_jax.edit import normalizer

EPSILON = np.finfo(np.float32).eps
S, C = 2, 5
update, apply, std = jax.jit(normalizer.update), jax.jit(normalizer.apply), jax.jit(normalizer.std)


def rows(count, seed=0):
    """[s, n, c] rows far from zero, each feature of another scale."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(S, count, C)) * [1, 10, 0.1, 3, 1e-3] + [5, -20, 0.5, 0, 2e-3]).astype(np.float32)


def padded(rows_snc, n=8):
    """(rows with garbage behind them, which are used)."""
    junk = np.full((S, n - rows_snc.shape[1], C), np.nan, np.float32)
    return np.concatenate([rows_snc, junk], axis=1), np.arange(n) < rows_snc.shape[1]


def seen(pieces):
    stats = normalizer.init(C)
    for piece in pieces:
        stats = update(stats, *padded(piece))
    return stats


def assert_stats(stats, everything_snc):
    flat = everything_snc.reshape(-1, C).astype(np.float64)
    assert int(stats.count) == len(flat)
    np.testing.assert_allclose(stats.mean_c, flat.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stats.var_c, flat.var(0), rtol=1e-4)
    np.testing.assert_allclose(std(stats), flat.std(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("splits", [[8], [1, 7], [7, 1], [3, 0, 5], [1] * 8, [2, 3, 2, 1]])
def test_any_split_gives_the_statistics_of_all_rows(splits):
    everything = rows(8)
    ends = np.cumsum(splits)[:-1]
    assert_stats(seen(np.split(everything, ends, axis=1)), everything)


def test_any_order_gives_the_statistics_of_all_rows():
    pieces = [rows(count, seed) for seed, count in enumerate([1, 4, 6])]
    everything = np.concatenate(pieces, axis=1)
    for order in itertools.permutations(pieces):
        assert_stats(seen(order), everything)


def test_many_merges_do_not_drift():
    everything = rows(8 * 50)
    assert_stats(seen(np.split(everything, 50, axis=1)), everything)


def test_unused_rows_and_updates_without_rows_change_nothing():
    before = seen([rows(4)])
    after = update(before, *padded(rows(0)))
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)


def test_before_any_row_only_the_epsilon_is_divided_by():
    stats, some = normalizer.init(C), rows(8)
    np.testing.assert_array_equal(std(stats), 1)
    np.testing.assert_allclose(apply(stats, some), some, rtol=1e-6)
    unseen = update(stats, *padded(rows(0)))
    assert int(unseen.count) == 0
    np.testing.assert_array_equal(std(unseen), 1)


def test_a_single_row_has_no_spread_and_becomes_zero():
    one = np.array([1.5, -2.0, 0.25, 8.0, 0.0], np.float32)
    stats = update(normalizer.init(C), one[None, None], np.array([True]))
    assert int(stats.count) == 1
    np.testing.assert_array_equal(stats.mean_c, one)
    np.testing.assert_array_equal(std(stats), 0)
    np.testing.assert_array_equal(apply(stats, one[None, None]), 0)


def test_a_feature_that_never_changes_stays_finite():
    same = np.full((S, 8, C), 3.0, np.float32)
    stats = update(normalizer.init(C), *padded(same))
    np.testing.assert_array_equal(apply(stats, same), 0)
    np.testing.assert_allclose(apply(stats, same + 1), 1 / EPSILON, rtol=1e-6)


def test_normalised_rows_have_mean_zero_and_deviation_one():
    everything = rows(8)
    normalised = np.asarray(apply(seen([everything]), everything)).reshape(-1, C)
    np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(normalised.std(0, ddof=1), 1, rtol=1e-3)
