"""How sure a score is: bootstrap intervals over items, and paired comparisons of two runs.

What is resampled are items: of values [items] or [items, 2], whole rows. A mean of values is resampled many times at
once. Any other total of them, such as F1, is computed anew for each draw, so that there are fewer draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from emsedit_jax.measure.scores import Measure, Values

RESAMPLES, LEVEL = 1000, 0.95
FEW = 400  # draws for the interval of a total that is no mean
SWAPS, ENOUGH = 2000, 20  # for its p: at most so many draws, or until so many differ as much
_AT_ONCE = 2**22  # values drawn together

Total = Callable[[Values], float]


class Paired(NamedTuple):
    """How much larger the second of two runs is on the same items."""

    difference: float
    low: float  # of the bootstrap interval
    high: float
    p: float  # two-sided, of a permutation test


def bootstrap(
    values: Any, total: Total | None = None, *, seed: int = 0, resamples: int | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the values' `total`, over draws of as many items; NaN for none.

    Args:
      values: [items] or [items, ...].
      total: None for the mean of values [items].
      resamples: None for 1,000 of the mean and 400 of any other total.

    Raises: ValueError for a mean of anything but [items].
    """
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return float("nan"), float("nan")
    if total is None:
        return _bootstrap_mean(values, seed, resamples or RESAMPLES, level)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(resamples or FEW, len(values)))
    return _middle(np.array([total(values[places]) for places in drawn]), level)


def _bootstrap_mean(values: np.ndarray, seed: int, resamples: int, level: float) -> tuple[float, float]:
    if values.ndim != 1:
        raise ValueError(f"Values of shape {values.shape} have no mean over items; give their total.")
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    rng, means = np.random.default_rng(seed), []
    rows = max(_AT_ONCE // values.size, 1)
    for start in range(0, resamples, rows):
        drawn = rng.integers(values.size, size=(min(rows, resamples - start), values.size))
        means.append(values[drawn].mean(axis=1))
    return _middle(np.concatenate(means), level)


def _middle(totals: Float[np.ndarray, " resamples"], level: float) -> tuple[float, float]:
    low, high = np.quantile(totals, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(
    first: Any, second: Any, total: Total | None = None, *, seed: int = 0, resamples: int | None = None
) -> Paired:
    """Second minus first over items in common order, of the mean (None) or any other `total` of values.

    p is the share of draws with as large a difference, where each item's two values are swapped or not; of means that
    is a flip of the difference's sign.

    Args:
      resamples: draws for p; None for 10,000 of the mean, and for any other total 2,000, or as many as it takes until
        20 have as large a difference (p is then 20 / draws, after Besag and Clifford).

    Raises: ValueError where they are not as many, or for a mean of anything but [items].
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} items cannot be paired.")
    if len(first) == 0:
        return Paired(*[float("nan")] * 4)
    if np.array_equal(first, second):
        return Paired(0.0, 0.0, 0.0, 1.0)
    if total is None:
        low, high = bootstrap(second - first, seed=seed)
        p = _flipped(second - first, seed, resamples or 10_000)
        return Paired(float(np.mean(second - first)), low, high, p)
    both = np.stack([first, second], axis=1)
    low, high = bootstrap(both, lambda drawn: total(drawn[:, 1]) - total(drawn[:, 0]), seed=seed)
    return Paired(total(second) - total(first), low, high, _swapped(both, total, seed, resamples or SWAPS))


def _flipped(differences: Float[np.ndarray, " items"], seed: int, resamples: int) -> float:
    """Share of sign flips with as large a mean difference."""
    moved = differences[differences != 0]
    rng, hits = np.random.default_rng(seed), 0
    rows = max(_AT_ONCE // moved.size, 1)
    bound = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    for start in range(0, resamples, rows):
        signs = rng.integers(2, size=(min(rows, resamples - start), moved.size), dtype=np.int8) * 2 - 1
        hits += int(np.sum(np.abs(signs @ moved) >= bound))
    return (hits + 1) / (resamples + 1)


def _swapped(both: Float[np.ndarray, "items 2 *value"], total: Total, seed: int, resamples: int) -> float:
    """Share of swaps with as large a difference of the totals."""
    rng, hits = np.random.default_rng(seed), 0
    bound = abs(total(both[:, 1]) - total(both[:, 0])) - 1e-9
    every = np.arange(len(both))
    for number in range(1, resamples + 1):
        side = rng.integers(2, size=len(both))
        hits += abs(total(both[every, side]) - total(both[every, 1 - side])) >= bound
        if hits == ENOUGH:
            return hits / number
    return (hits + 1) / (resamples + 1)


# ---------------------------------------------------------------------------------------------- of a run's scores


def interval(measure: Measure, values: Values) -> tuple[float, float]:
    """Bootstrap interval of a score's total, in its unit."""
    if measure.drawn:
        return bootstrap(values, measure.drawn)
    low, high = (measure.total(np.array([end])) for end in bootstrap(values))
    return low, high


def difference(measure: Measure, first: Values, second: Values) -> Paired:
    """Second minus first of a score's totals over items in common order, in its unit. Raises: ValueError."""
    if measure.drawn:
        return paired(first, second, measure.drawn)
    found, start = paired(first, second), float(np.mean(first)) if len(first) else float("nan")
    base, *moved = (measure.total(np.array([start + by])) for by in (0.0, *found[:3]))
    return Paired(moved[0] - base, moved[1] - base, moved[2] - base, found.p)
