"""How sure a score is: bootstrap intervals, and paired comparisons of two runs.

What is drawn are facts with all their items, since prompts of one fact (ten neighbours in CounterFact) are not
independent; an item that is all there is of its fact is drawn alone. Of values [items] or [items, 2] these are whole
rows. A mean of values is drawn many times at once: the sum of what is drawn over its number, so a fact with more items
weighs more. Any other total, such as F1, is computed anew for each draw, so that there are fewer draws.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from emsedit_jax.measure.scores import Measure, Values

RESAMPLES, LEVEL = 1000, 0.95
FEW = 400  # draws for the interval of a total that is no mean
SWAPS, ENOUGH = 2000, 20  # for its p: at most so many draws, or until so many differ as much
_AT_ONCE = 2**22  # values drawn together

_PART = re.compile(r" #(\S+ )?\d+$")  # of an item's name: which of its fact's prompts it is

Total = Callable[[Values], float]
Facts = Int[np.ndarray, " items"]  # equal numbers: items of one fact


class Paired(NamedTuple):
    """How much larger the second of two runs is on the same items."""

    difference: float
    low: float  # of the bootstrap interval
    high: float
    p: float  # two-sided, of a permutation test


def facts_of(items: Sequence[str]) -> Facts:
    """Which items belong to one fact: those with the same name up to ` #1`, or ` #multi_hop 1`; numbered from 0."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(_PART.sub("", item), len(known)) for item in items], np.int64)


def bootstrap(
    values: Any,
    total: Total | None = None,
    *,
    facts: Facts | None = None,
    seed: int = 0,
    resamples: int | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile interval of the values' `total`, over draws of as many facts; NaN for none.

    Args:
      values: [items] or [items, ...].
      total: None for the mean of values [items].
      facts: which fact each item belongs to; None: each to one of its own.
      resamples: None for 1,000 of the mean and 400 of any other total.

    Raises: ValueError for a mean of anything but [items], and where `facts` are not as many as the values.
    """
    values = np.asarray(values, np.float64)
    numbers = _numbered(facts, len(values))
    if len(values) == 0:
        return float("nan"), float("nan")
    if total is None:
        return _bootstrap_mean(values, numbers, seed, resamples or RESAMPLES, level)
    rng = np.random.default_rng(seed)
    order, sizes = np.argsort(numbers, kind="stable"), np.bincount(numbers)
    starts = np.cumsum(sizes) - sizes  # of each fact's items in that order
    totals = []
    for drawn in rng.integers(sizes.size, size=(resamples or FEW, sizes.size)):
        counts = sizes[drawn]
        shifts = starts[drawn] - (np.cumsum(counts) - counts)
        totals.append(total(values[order[np.repeat(shifts, counts) + np.arange(counts.sum())]]))
    return _middle(np.array(totals), level)


def _numbered(facts: Facts | None, n_items: int) -> Facts:
    """The facts as numbers from 0 in their order, so that facts of one item each are drawn as items are."""
    if facts is None:
        return np.arange(n_items)
    if len(facts) != n_items:
        raise ValueError(f"{n_items} items cannot belong to {len(facts)} facts: name one for each item.")
    _, first, numbers = np.unique(facts, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[numbers]


def _bootstrap_mean(values: np.ndarray, numbers: Facts, seed: int, resamples: int, level: float) -> tuple[float, float]:
    if values.ndim != 1:
        raise ValueError(f"Values of shape {values.shape} have no mean over items; give their total.")
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers)
    rng, means = np.random.default_rng(seed), []
    rows = max(_AT_ONCE // sums.size, 1)
    for start in range(0, resamples, rows):
        drawn = rng.integers(sums.size, size=(min(rows, resamples - start), sums.size))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return _middle(np.concatenate(means), level)


def _middle(totals: Float[np.ndarray, " resamples"], level: float) -> tuple[float, float]:
    low, high = np.quantile(totals, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(
    first: Any,
    second: Any,
    total: Total | None = None,
    *,
    facts: Facts | None = None,
    seed: int = 0,
    resamples: int | None = None,
) -> Paired:
    """Second minus first over items in common order, of the mean (None) or any other `total` of values.

    p is the share of draws with as large a difference, where the two runs are swapped or not in all items of a fact;
    of means that is a flip of the sign of the fact's summed difference.

    Args:
      facts: which fact each item belongs to; None: each to one of its own.
      resamples: draws for p; None for 10,000 of the mean, and for any other total 2,000, or as many as it takes until
        20 have as large a difference (p is then 20 / draws, after Besag and Clifford).

    Raises: ValueError where they, or `facts`, are not as many, or for a mean of anything but [items].
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} items cannot be paired.")
    numbers = _numbered(facts, len(first))
    if len(first) == 0:
        return Paired(*[float("nan")] * 4)
    if np.array_equal(first, second):
        return Paired(0.0, 0.0, 0.0, 1.0)
    if total is None:
        low, high = bootstrap(second - first, facts=numbers, seed=seed)
        p = _flipped(_summed(second - first, numbers), seed, resamples or 10_000)
        return Paired(float(np.mean(second - first)), low, high, p)
    both = np.stack([first, second], axis=1)
    low, high = bootstrap(both, lambda drawn: total(drawn[:, 1]) - total(drawn[:, 0]), facts=numbers, seed=seed)
    return Paired(total(second) - total(first), low, high, _swapped(both, numbers, total, seed, resamples or SWAPS))


def _summed(differences: Float[np.ndarray, " items"], numbers: Facts) -> Float[np.ndarray, " facts"]:
    """Each fact's difference; 0 where its items' differences cancel but for rounding."""
    found = np.bincount(numbers, differences)
    return np.where(np.abs(found) <= 1e-12 * np.bincount(numbers, np.abs(differences)), 0.0, found)


def _flipped(differences: Float[np.ndarray, " facts"], seed: int, resamples: int) -> float:
    """Share of sign flips with as large a mean difference."""
    moved = differences[differences != 0]
    if not moved.size:
        return 1.0
    rng, hits = np.random.default_rng(seed), 0
    rows = max(_AT_ONCE // moved.size, 1)
    bound = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    for start in range(0, resamples, rows):
        signs = rng.integers(2, size=(min(rows, resamples - start), moved.size), dtype=np.int8) * 2 - 1
        hits += int(np.sum(np.abs(signs @ moved) >= bound))
    return (hits + 1) / (resamples + 1)


def _swapped(
    both: Float[np.ndarray, "items 2 *value"], numbers: Facts, total: Total, seed: int, resamples: int
) -> float:
    """Share of swaps with as large a difference of the totals."""
    rng, hits = np.random.default_rng(seed), 0
    bound = abs(total(both[:, 1]) - total(both[:, 0])) - 1e-9
    every, n_facts = np.arange(len(both)), numbers.max() + 1
    for number in range(1, resamples + 1):
        side = rng.integers(2, size=n_facts)[numbers]
        hits += abs(total(both[every, side]) - total(both[every, 1 - side])) >= bound
        if hits == ENOUGH:
            return hits / number
    return (hits + 1) / (resamples + 1)


# ---------------------------------------------------------------------------------------------- of a run's scores


def interval(measure: Measure, values: Values, facts: Facts | None = None) -> tuple[float, float]:
    """Bootstrap interval of a score's total, in its unit, over facts as `bootstrap` takes them. Raises: ValueError."""
    if measure.drawn:
        return bootstrap(values, measure.drawn, facts=facts)
    low, high = (measure.total(np.array([end])) for end in bootstrap(values, facts=facts))
    return low, high


def difference(measure: Measure, first: Values, second: Values, facts: Facts | None = None) -> Paired:
    """Second minus first of a score's totals over items in common order, in its unit. Raises: ValueError."""
    if measure.drawn:
        return paired(first, second, measure.drawn, facts=facts)
    found, start = paired(first, second, facts=facts), float(np.mean(first)) if len(first) else float("nan")
    base, *moved = (measure.total(np.array([start + by])) for by in (0.0, *found[:3]))
    return Paired(moved[0] - base, moved[1] - base, moved[2] - base, found.p)
