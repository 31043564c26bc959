"""Scores item by item: the file scores.json of a run, and what of it stands in summary.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emsedit_jax.errors import InputError
from emsedit_jax.measure import intervals
from emsedit_jax.measure.scores import Score, Scores, measure
from emsedit_jax.run import storing


def write(path: Path, scores: Mapping[str, Scores]) -> None:
    """Writes scores by what they are of (`unedited`, `edited`) and by name; what is not finite becomes null.

    Raises:
        InputError: the file cannot be written.
    """
    found = {of: {name: score._asdict() for name, score in named.items()} for of, named in scores.items()}
    storing.write_json(path, found)


def read(path: Path) -> dict[str, dict[str, Score]]:
    """What `write` wrote, every float as it was; null is not-a-number again.

    Raises:
        InputError: the file is missing or damaged, or somebody else's.
    """
    found = storing.read_json(path, "make the run again in another folder")
    groups = _object(path, "it", found)
    return {
        of: {name: _score(path, f"{of}.{name}", name, entry) for name, entry in _object(path, of, named).items()}
        for of, named in groups.items()
    }


def summarised(scores: Scores) -> dict[str, dict[str, Any]]:
    """Of each score its total, the interval of it over draws of facts, and the number of items.

    It is the same whenever asked. A score that lacks an item's number has no total: not-a-number.
    """
    return {
        "totals": {name: total(name, score) for name, score in scores.items()},
        "intervals": {name: list(interval(name, score)) for name, score in scores.items()},
        "items": {name: len(score.items) for name, score in scores.items()},
    }


def total(name: str, score: Score) -> float:
    """The score of that name as one number; not-a-number where an item's is."""
    return math.nan if np.isnan(score.values).any() else measure(name).total(score.values)


def interval(name: str, score: Score) -> tuple[float, float]:
    """The bootstrap interval of that number; items of one fact are drawn together."""
    if np.isnan(score.values).any():
        return math.nan, math.nan
    return intervals.interval(measure(name), score.values, intervals.facts_of(score.items))


# ------------------------------------------------------------------------------------------ checking


def _object(path: Path, where: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _foreign(path, f"{where} is no object")
    return found


def _score(path: Path, where: str, name: str, found: Any) -> Score:
    try:
        single = measure(name).of_mean
    except KeyError:
        raise _foreign(path, f"there is no score {name!r}") from None
    items, values = (_object(path, where, found).get(key) for key in ("items", "values"))
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _foreign(path, f"{where}.items must be a list of texts")
    if not isinstance(values, list) or not all(map(_is_number if single else _is_pair, values)):
        raise _foreign(path, f"{where}.values must be a list of {'numbers' if single else 'pairs of numbers'}")
    if len(items) != len(values):
        raise _foreign(path, f"{where} has {len(items)} items and {len(values)} values")
    found = np.array(values, np.float64)  # numpy reads None as not-a-number
    return Score(found if single else found.reshape(-1, 2), tuple(items))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _foreign(path: Path, why: str) -> InputError:
    return InputError(f"{path} holds no scores of this program: {why}; make the run again in another folder.")
