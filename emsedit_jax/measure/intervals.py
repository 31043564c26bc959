"""How sure a score is: bootstrap intervals over items, and paired comparisons of two runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

RESAMPLES, LEVEL = 1000, 0.95
_AT_ONCE = 2**22  # values drawn together


class Paired(NamedTuple):
    """How much larger the second of two runs is on the same items."""

    difference: float
    low: float  # of the bootstrap interval
    high: float
    p: float  # two-sided, of a sign-flip permutation test


def bootstrap(values: Any, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean of the values, over draws of as many items; NaN for none."""
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return float("nan"), float("nan")
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    rng, means = np.random.default_rng(seed), []
    rows = max(_AT_ONCE // values.size, 1)
    for start in range(0, resamples, rows):
        drawn = rng.integers(values.size, size=(min(rows, resamples - start), values.size))
        means.append(values[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(first: Any, second: Any, *, seed: int = 0, resamples: int = 10_000) -> Paired:
    """Second minus first over items in common order; p is the share of sign flips with as large a mean difference.

    Raises: ValueError where they are not as many.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} items cannot be paired.")
    differences = second - first
    if differences.size == 0:
        return Paired(*[float("nan")] * 4)
    low, high = bootstrap(differences, seed=seed)
    moved = differences[differences != 0]
    if moved.size == 0:
        return Paired(0.0, 0.0, 0.0, 1.0)
    rng, hits = np.random.default_rng(seed), 0
    rows = max(_AT_ONCE // moved.size, 1)
    bound = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    for start in range(0, resamples, rows):
        signs = rng.integers(2, size=(min(rows, resamples - start), moved.size), dtype=np.int8) * 2 - 1
        hits += int(np.sum(np.abs(signs @ moved) >= bound))
    return Paired(float(differences.mean()), low, high, (hits + 1) / (resamples + 1))
