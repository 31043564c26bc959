"""What there is to say of several runs: each score with its interval, and differences on the items that both have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsedit_jax.errors import InputError
from emsedit_jax.measure import intervals
from emsedit_jax.measure.scores import Score, Scores, measure
from emsedit_jax.run import items

PUBLISHED = ("ES", "GS", "LS")
ALPHA = 0.05  # a corrected p below it is called a difference

# Settings that decide what a score's items are and how they are asked; where they differ, items are not the same ones.
_DATA = ("dataset.name",)
_SAID = (*_DATA, "eval.max_new_tokens")
_ABILITY = ("eval.ability_path", "eval.ability_shots")
_ASKED_BY = {
    "exact": _SAID,
    "contained": _SAID,
    "fluency": (*_DATA, "eval.fluency_tokens"),
    "perplexity": ("model.name_or_path", "eval.text_path"),  # its windows are cut by the model's tokens
}
_TOKENS = ("", "first", "middle", "last")  # published scores: shares of tokens
# Of data sets where an answer has to beat another one: which of its tokens count depends on the prompts of its
# micro-batch, so on how an edit batch is cut, and on which facts come together in it.
_CUT = {"counterfact": ("dataset.batch_size", "dataset.n_edits", "dataset.shuffle")}
_REPHRASED = ("fever",)  # their other wordings are drawn by the seed


class Run(NamedTuple):
    """A finished run, as its folder tells it."""

    name: str  # the folder's, with as many of its parents' as tell it from the others
    path: Path
    config: Mapping[str, Any]  # flat
    summary: Mapping[str, Any]
    scores: Mapping[str, Scores]  # unedited (may be missing, or empty) and edited


class Cell(NamedTuple):
    """A score in its unit."""

    total: float
    low: float
    high: float
    items: int


class Column(NamedTuple):
    """One model: the edited one of a run, or an unedited one; `run` is None for the unedited one of all runs."""

    run: str | None
    edited: bool
    cells: Mapping[str, Cell]


class Difference(NamedTuple):
    """How much larger a run's score is than the first run's, over the items that both have."""

    run: str
    score: str
    items: int
    difference: float  # with its interval, in the score's unit
    low: float
    high: float
    p: float
    p_holm: float  # corrected for all tests of the comparison

    @property
    def verdict(self) -> str:
        """In a word; none where it may be chance."""
        if not self.p_holm < ALPHA:
            return ""
        direction = measure(self.score).better * self.difference
        return "better" if direction > 0 else "worse" if direction < 0 else "other"


class Comparison(NamedTuple):
    """What there is to say; the first run is what the others are held to."""

    runs: tuple[Run, ...]
    columns: tuple[Column, ...]
    differences: tuple[Difference, ...]
    settings: Mapping[str, tuple[Any, ...]]  # those that are not the same in all runs: a value for each
    notes: tuple[str, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """All runs beside each other, and each further one against the first.

    Raises:
        InputError: a run has no item in common with the first.
    """
    first, *others = runs
    tested, notes = [], _other_unedited(runs)
    for run in others:
        found, left_out = _differences(first, run)
        tested += found
        notes += left_out
    corrected = holm([one.p for one in tested])
    tested = [one._replace(p_holm=p) for one, p in zip(tested, corrected, strict=True)]
    return Comparison(tuple(runs), tuple(_columns(runs)), tuple(tested), differing(runs), tuple(notes))


def differing(runs: Sequence[Run]) -> dict[str, tuple[Any, ...]]:
    """The settings that are not the same in all runs; None where a run has no such setting."""
    known = dict.fromkeys(name for run in runs for name in run.config)
    found = {name: tuple(run.config.get(name) for run in runs) for name in known}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the chance of even one false alarm among them stays below the level."""
    corrected, largest = [1.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        largest = max(largest, min((len(ps) - rank) * ps[place], 1.0))
        corrected[place] = largest
    return corrected


# ------------------------------------------------------------------------------------------ columns


def _columns(runs: Sequence[Run]) -> list[Column]:
    """The unedited model first; where runs do not agree on it, each run's own before its edited one."""
    if not _disagree(runs):
        unedited = {name: score for run in runs for name, score in run.scores.get("unedited", {}).items()}
        shared = [Column(None, False, _cells(unedited))] if unedited else []
        return shared + [Column(run.name, True, _cells(run.scores["edited"])) for run in runs]
    found = [
        Column(run.name, of == "edited", _cells(run.scores.get(of, {})))
        for run in runs
        for of in ("unedited", "edited")
    ]
    return [column for column in found if column.cells]


def _cells(scores: Scores) -> dict[str, Cell]:
    totals, ends, counts = items.summarised(scores).values()
    return {name: Cell(totals[name], ends[name][0], ends[name][1], counts[name]) for name in scores}


def _disagree(runs: Sequence[Run]) -> bool:
    """Whether there is more than one unedited model in the runs, or it was asked other questions."""
    seen: dict[str, tuple[Run, Score]] = {}
    for run in runs:
        for name, score in run.scores.get("unedited", {}).items():
            other, known = seen.setdefault(name, (run, score))
            if _asked_otherwise(name, other, run) or known.items != score.items or not _equal(known, score):
                return True
    return False


def _equal(first: Score, second: Score) -> bool:
    """Whether they are the same but for another machine's rounding."""
    return np.allclose(first.values, second.values, rtol=1e-3, atol=1e-6, equal_nan=True)


def _other_unedited(runs: Sequence[Run]) -> list[str]:
    """Notes on runs of the same model whose unedited scores are not those of the first, item by item."""
    notes, first = [], runs[0]
    for run in runs[1:]:
        before = [one.scores.get("unedited", {}) for one in (first, run)]
        if first.config.get("model.name_or_path") != run.config.get("model.name_or_path"):
            continue
        moved = [
            name
            for name in before[0]
            if name in before[1]
            and not _asked_otherwise(name, first, run)
            and not _equal(*_common(before[0][name], before[1][name]))
        ]
        if moved:
            notes.append(
                f"{first.name} and {run.name} found other scores of the unedited model on the same items "
                f"({', '.join(moved)}): other data under the same name, or another machine or version."
            )
    return notes


# ------------------------------------------------------------------------------------------ differences


def _differences(first: Run, run: Run) -> tuple[list[Difference], list[str]]:
    """Tests of every score that both have, uncorrected, and notes on what could not be tested, or on a part alone."""
    before, after = first.scores["edited"], run.scores["edited"]
    found: list[Difference] = []
    otherwise: dict[str, list[str]] = {}  # the settings that decide what is asked -> scores
    apart, partly = [], []
    for name in before:
        if name not in after:
            continue
        if fields := _asked_otherwise(name, first, run):
            otherwise.setdefault(", ".join(fields), []).append(name)
            continue
        pair = _common(before[name], after[name])
        n_items = len(pair[0].items)
        if n_items:
            facts = intervals.facts_of(pair[0].items)
            moved = intervals.difference(measure(name), pair[0].values, pair[1].values, facts)
            found.append(Difference(run.name, name, n_items, *moved, p_holm=1.0))
        else:
            apart.append(name)
        if 0 < n_items < max(len(before[name].items), len(after[name].items)):
            partly.append(f"{name} ({n_items} of {len(before[name].items)} and {len(after[name].items)})")
    if not found:
        why = f"{' that were asked alike' if otherwise else ''}{_why(first, run)}"
        raise InputError(f"{first.path} and {run.path} have no items in common{why}; compare runs on the same facts.")
    alone = [name for name in {**before, **after} if (name in before) != (name in after)]
    said = {f"not tested, since the runs differ in {fields}": names for fields, names in otherwise.items()}
    said |= {"not tested, with no items in common": apart, "tested on the items in common": partly}
    notes = [f"{', '.join(those)} {words}" for words, those in (said | {"are not in both": alone}).items() if those]
    return found, [f"{first.name} and {run.name}: {'; '.join(notes)}."] if notes else []


def _why(first: Run, run: Run) -> str:
    """The settings in which two runs differ and that facts depend on, in brackets."""
    told = [name for name in differing((first, run)) if name.startswith("dataset.") or name == "seed"]
    words = [f"config.{name}: {first.config.get(name)} and {run.config.get(name)}" for name in told]
    return f" ({'; '.join(words)})" if words else ""


def _asked_otherwise(name: str, first: Run, second: Run) -> list[str]:
    """The settings that make two runs' items of that score different ones in spite of their names."""
    fields = {field: None for run in (first, second) for field in _decides(name, run)}
    return [field for field in fields if first.config.get(field) != second.config.get(field)]


def _decides(name: str, run: Run) -> tuple[str, ...]:
    """The settings that decide what the run asks for that score."""
    head, _, tail = name.partition(".")
    if head not in PUBLISHED:
        return _SAID if head == "asks" else _ASKED_BY.get(name, _ABILITY)
    fields, data = _ASKED_BY.get(tail, _DATA), run.config.get("dataset.name")
    if tail in _TOKENS and data in _CUT:
        fields += (*_CUT[data], *(("seed",) if run.config.get("dataset.shuffle") else ()))
    if head == "GS" and data in _REPHRASED:
        fields += ("seed",)
    return fields


def _common(first: Score, second: Score) -> tuple[Score, Score]:
    """Both on the items that both have a number for, in the first one's order; an item may come several times."""
    places = {item: m for m, item in enumerate(_numbered(second.items))}
    pairs = [(m, places[item]) for m, item in enumerate(_numbered(first.items)) if item in places]
    known = [(m, n) for m, n in pairs if not (np.isnan(first.values[m]).any() or np.isnan(second.values[n]).any())]
    found = zip((first, second), zip(*known, strict=True) if known else ((), ()), strict=True)
    one, other = (Score(score.values[list(at)], tuple(score.items[m] for m in at)) for score, at in found)
    return one, other


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    found = []
    for name in names:
        found.append((name, counts[name]))
        counts[name] += 1
    return found
