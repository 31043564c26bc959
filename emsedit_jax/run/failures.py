"""What went wrong in a run, item by item: facts that did not take, wordings that do not follow, answers that broke."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from emsedit_jax.measure.scores import PUBLISHED, Score, Scores

SHOWN = 10  # of each sort
ALL = 1.0  # share of an answer's tokens


class Failure(NamedTuple):
    """One item, with the shares of its answer's tokens that are right."""

    item: str
    fact: str  # the edited one that it belongs to
    before: float  # not-a-number where the unedited model was not asked
    after: float


class Failures(NamedTuple):
    """Those of one sort, the worst first, in the order of the edits where they are equal."""

    found: list[Failure]
    of: int  # items that could have failed so


def failures(scores: Mapping[str, Scores]) -> dict[str, Failures]:
    """By score, from scores by what they are of (`unedited`, `edited`).

    `ES`: edited prompts that are not answered in full. `GS`: other wordings that are not, though the edited prompt is.
    `LS`: unrelated prompts that were answered in full before, and no longer are.
    """
    takes = _by_item(scores, "edited", "ES")
    could: dict[str, Callable[[Failure], bool]] = {
        "ES": lambda one: True,
        "GS": lambda one: takes.get(one.fact) == ALL,
        "LS": lambda one: one.before == ALL,
    }
    asked = {name: [one for one in _items(name, scores) if could[name](one)] for name in PUBLISHED}
    return {
        name: Failures(sorted((one for one in those if one.after < ALL), key=lambda one: one.after), len(those))
        for name, those in asked.items()
    }


def _items(name: str, scores: Mapping[str, Scores]) -> list[Failure]:
    """All items of a score, whether they failed or not."""
    facts, before = _by_item(scores, "edited", "ES"), _by_item(scores, "unedited", name)
    return [
        Failure(item, item if item in facts else item.rpartition(" #")[0], before.get(item, math.nan), after)
        for item, after in _by_item(scores, "edited", name).items()
    ]


def _by_item(scores: Mapping[str, Scores], of: str, name: str) -> dict[str, float]:
    score: Score | None = scores.get(of, {}).get(name)
    return {} if score is None else dict(zip(score.items, score.values.tolist(), strict=True))
