import itertools

import numpy as np
import pytest

from emsedit_jax.measure.intervals import bootstrap, difference, facts_of, interval, paired
from emsedit_jax.measure.scores import measure


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


# ---------------------------------------------------------------------------------------------- totals that are no mean


def agreement(pairs):
    return float(np.mean(pairs[:, 0] == pairs[:, 1]))


def test_any_total_is_drawn_by_items():
    # of two draws from (0, 1) the largest is 0 in a quarter of the cases
    assert bootstrap([0.0, 1.0], lambda values: float(values.max()), level=0.2) == (1.0, 1.0)
    assert bootstrap([0.0, 1.0], lambda values: float(values.max()), level=0.8) == (0.0, 1.0)
    pairs = np.array([[1.0, 1.0]] * 60 + [[1.0, 0.0]] * 40)  # drawn whole: no row gets another's answer
    low, high = bootstrap(pairs, agreement)
    assert low == pytest.approx(0.6 - 1.96 * np.sqrt(0.24 / 100), abs=0.03)
    assert high == pytest.approx(0.6 + 1.96 * np.sqrt(0.24 / 100), abs=0.03)
    assert np.isnan(bootstrap(np.zeros((0, 2)), agreement)).all()
    assert bootstrap(pairs[:60], agreement) == (1.0, 1.0)


def test_pairs_have_no_mean():
    with pytest.raises(ValueError, match=r"\(3, 2\) have no mean"):
        bootstrap(np.eye(3, 2))


def test_the_p_value_is_that_of_all_swaps():
    def total(values):
        return float(values.max() + values.sum() ** 2)

    first, second = np.array([0.0, 0.5, 0.2, 0.4]), np.array([0.3, 0.6, 0.1, 0.9])
    both = np.stack([first, second])
    sides = itertools.product((0, 1), repeat=4)
    swaps = [(both[list(side), range(4)], both[[1 - one for one in side], range(4)]) for side in sides]
    wanted = np.mean([abs(total(two) - total(one)) >= total(second) - total(first) - 1e-9 for one, two in swaps])
    assert wanted == 4 / 16  # the third item may lie either way: with it, the sums are even further apart
    found = paired(first, second, total)
    assert found.difference == pytest.approx(total(second) - total(first))
    assert found.p == pytest.approx(wanted, abs=0.12)  # 20 in about 80 draws
    assert found.low < found.difference < found.high


def test_a_total_that_is_a_mean_is_compared_as_one():
    rng = np.random.default_rng(2)
    first, second = rng.random(30), rng.random(30) + 0.2
    by_mean, by_total = paired(first, second), paired(first, second, lambda values: float(np.mean(values)))
    assert by_total.difference == pytest.approx(by_mean.difference)
    np.testing.assert_allclose(by_total[1:3], by_mean[1:3], atol=0.05)
    assert by_total.p == pytest.approx(by_mean.p, abs=0.01)


def test_pairs_of_runs_that_do_not_differ_and_that_always_do():
    wrong, right = np.tile([1.0, 0.0], (20, 1)), np.tile([1.0, 1.0], (20, 1))
    assert paired(wrong, wrong, agreement) == (0.0, 0.0, 0.0, 1.0)
    better = paired(wrong, right, agreement)
    assert better[:3] == (1.0, 1.0, 1.0)
    assert better.p < 0.001
    assert paired(right, wrong, agreement).difference == -1.0
    by_chance = paired(np.concatenate([wrong, right]), np.concatenate([right, wrong]), agreement)
    assert (by_chance.difference, by_chance.p) == (0.0, 1.0)


# ---------------------------------------------------------------------------------------------- items of one fact


def largest(values):
    return float(values.max())


def size(values):
    return float(len(values))


def test_names_up_to_the_mark_tell_the_facts():
    names = ["a row 3 #0", "a row 3 #1", "a row 30", "a row 3 #multi_hop 0", "a row 3", "window 3", "a row 30"]
    assert facts_of(names).tolist() == [0, 0, 1, 0, 0, 2, 1]
    assert facts_of(["my #1 file.json row 3", "my #1 file.json row 4 #1"]).tolist() == [0, 1]  # not a fact "my"
    assert facts_of(["mquake.json row 3 fact 0", "mquake.json row 3 fact 1"]).tolist() == [0, 1]
    assert facts_of([]).shape == (0,)


def test_two_facts_whose_items_are_equal_are_as_unsure_as_two_items():
    values, facts = np.repeat([0.0, 1.0], 10), np.repeat([7, 3], 10)
    for level, wanted in ((0.95, (0.0, 1.0)), (0.6, (0.0, 1.0)), (0.4, (0.5, 0.5))):  # 0 and 1 in a quarter each
        assert bootstrap(values, facts=facts, level=level) == bootstrap([0.0, 1.0], level=level) == wanted
    low, high = bootstrap(values)
    assert 0.2 < low < high < 0.8
    drawn = {"facts": facts, "level": 0.2}  # the largest of two facts is 0 in a quarter of the cases
    assert bootstrap(values, largest, **drawn) == bootstrap([0.0, 1.0], largest, level=0.2) == (1.0, 1.0)
    assert bootstrap(values, largest, facts=facts, level=0.8) == (0.0, 1.0)


def test_a_fact_with_more_items_weighs_more():
    values, facts = [1.0, 0.0, 0.0, 0.0], np.array([0, 1, 1, 1])  # drawn: 2 / 2, 1 / 4 or 0 / 6
    seen = {bootstrap(values, facts=facts, resamples=1, seed=seed)[0] for seed in range(30)}
    assert seen == {0.0, 0.25, 1.0}
    sizes = {bootstrap(values, size, facts=facts, resamples=1, seed=seed)[0] for seed in range(30)}
    assert sizes == {2.0, 4.0, 6.0}  # all of a fact's items, and nothing else


@pytest.mark.parametrize("total", [None, largest])
def test_facts_of_one_item_each_draw_the_same_numbers(total):
    rng = np.random.default_rng(4)
    first, second = rng.random(40), rng.random(40)
    for facts in (np.arange(40), rng.permutation(40) * 3):
        assert bootstrap(first, total, facts=facts, seed=2) == bootstrap(first, total, seed=2)
        assert paired(first, second, total, facts=facts, seed=2) == paired(first, second, total, seed=2)
    drawn = np.random.default_rng(2).integers(40, size=(1000, 40))
    assert bootstrap(first, seed=2) == pytest.approx(tuple(np.quantile(first[drawn].mean(axis=1), [0.025, 0.975])))


def test_where_a_facts_items_stand_and_how_facts_are_numbered_is_all_the_same():
    values, facts = np.array([0.1, 0.9, 0.2, 0.8, 0.4]), np.array([0, 1, 0, 1, 2])
    apart = bootstrap(values, facts=facts)
    together = bootstrap(values[[0, 2, 1, 3, 4]], facts=np.array([5, 5, 2, 2, 9]))
    assert apart == pytest.approx(together)


@pytest.mark.parametrize("total", [None, lambda values: float(np.mean(values))])
def test_runs_are_swapped_in_all_items_of_a_fact(total):
    first, second, facts = np.zeros(40), np.ones(40), np.repeat(np.arange(4), 10)
    found = paired(first, second, total, facts=facts)
    assert found[:3] == (1.0, 1.0, 1.0)
    assert found.p == pytest.approx(2 / 2**4, abs=0.1)  # all four or none
    assert paired(first, second, total).p < 0.001


def test_differences_that_cancel_inside_each_fact_are_none():
    first, second = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.2, 0.0, 0.4])
    found = paired(first, second, facts=np.array([0, 1, 0, 1]))
    assert found.difference == pytest.approx(0)
    assert found.p == 1.0


def test_each_item_belongs_to_a_fact():
    with pytest.raises(ValueError, match="3 items cannot belong to 2 facts"):
        bootstrap([0.0, 1.0, 2.0], facts=np.array([0, 1]))
    with pytest.raises(ValueError, match="2 items cannot belong to 3 facts"):
        paired([0.0, 1.0], [1.0, 1.0], facts=np.array([0, 1, 1]))


# ---------------------------------------------------------------------------------------------- of a run's scores


def test_intervals_of_scores_are_in_their_unit():
    values = np.log([4.0, 9.0, 6.0, 5.0])
    low, high = bootstrap(values)
    assert interval(measure("perplexity"), values) == (np.exp(low), np.exp(high))
    assert interval(measure("ES"), values) == (100 * low, 100 * high)
    pairs = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]] * 10)
    found = measure("rte.mcc")
    assert interval(found, pairs) == bootstrap(pairs, found.drawn)
    assert interval(found, pairs)[0] < found.total(pairs) < interval(found, pairs)[1]


def test_differences_of_scores_are_in_their_unit():
    first, second = np.log([4.0, 9.0, 6.0, 5.0]), np.log([8.0, 18.0, 12.0, 10.0])
    twice = difference(measure("perplexity"), first, second)
    base = np.prod([4.0, 9.0, 6.0, 5.0]) ** 0.25
    assert (twice.difference, twice.low, twice.high) == pytest.approx((base, base, base))
    assert difference(measure("ES"), np.zeros(9), np.ones(9)).difference == pytest.approx(100)
    wrong, right = np.array([[0.0, 1.0], [1.0, 0.0]] * 8), np.array([[0.0, 0.0], [1.0, 1.0]] * 8)
    found = difference(measure("rte.f1"), wrong, right)
    assert (found.difference, found.low, found.high) == (100.0, 100.0, 100.0)
    assert found.p < 0.001
    assert np.isnan(difference(measure("ES"), np.zeros(0), np.zeros(0))).all()


def test_scores_draw_whole_facts():
    facts = np.repeat([0, 1], 10)
    assert interval(measure("LS"), np.repeat([0.0, 1.0], 10), facts) == (0.0, 100.0)
    first, second = np.zeros(20), np.repeat([0.5, 1.0], 10)
    by_facts = difference(measure("LS"), first, second, facts)
    assert by_facts[:3] == (75.0, 50.0, 100.0)
    assert by_facts.p == pytest.approx(2 / 2**2, abs=0.02)
    wrong, right = np.tile([[0.0, 1.0], [1.0, 0.0]], (8, 1)), np.tile([[0.0, 0.0], [1.0, 1.0]], (8, 1))
    assert difference(measure("rte.f1"), wrong, right, np.repeat([0, 1], 8)).p == pytest.approx(0.5, abs=0.15)
