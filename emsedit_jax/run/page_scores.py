"""Of a run's page: its scores before and after with their intervals, and the curves along the sequence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emsedit_jax.measure.scores import PUBLISHED, Scores, measure
from emsedit_jax.run import page_figures, report
from emsedit_jax.run.compare_table import grouped, number

if TYPE_CHECKING:
    from emsedit_jax.run.page import Found

NOTHING = "–"
EXPLAINED = {
    "ES": "Efficacy: how much of the new answers the model gets right when it is asked exactly as it was edited.",
    "GS": "Generalisation: the same facts asked in other words, which it was not edited with.",
    "LS": "Locality: unrelated facts, whose true answers editing should leave alone.",
}
MOST_BATCHES = 200  # in the table of the curves' numbers


def parts(found: Found) -> dict[str, Any]:
    """What the template shows of scores and curves."""
    drawn = curve(found)
    return {
        "headline": [_card(found.summary, name) for name in _scored(found.summary) if name in PUBLISHED],
        "rule": _rule(found),
        "further": _further(found.summary),
        "panels": page_figures.curve_panels(drawn) if len(drawn["edits"]) > 1 else {},
        "legend": [(label, page_figures.sample(style)) for label, style in _lines(drawn)],
        "score_words": report.SCORES,
        "batches": _batches(drawn),
        "ability": _ability(found.summary),
    }


def _scored(summary: Mapping[str, Any]) -> list[str]:
    """The scores that there are, but for those of another version that nobody knows any more."""
    return [name for name in dict.fromkeys(itertools.chain(*summary.get("scores", {}).values())) if _is_known(name)]


def _is_known(name: str) -> bool:
    try:
        return bool(measure(name))
    except KeyError:
        return False


def _rule(found: Found) -> str:
    """What "right" means."""
    versus = " or, for this data set, is likelier than the other answer's" * (
        found.config.get("dataset.name") == "counterfact"
    )
    return (
        f"Share of the answers' tokens that are right: a token is when the model expects it most{versus}, given the "
        "right ones before it. In brackets 95\u00a0% intervals, from drawing whole facts again and again."
    )


# ------------------------------------------------------------------------------------------ scores


def _card(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A published score, before and after."""
    found = {of: cell(summary, of, name) for of in report.ROWS}
    spans = [
        (report.ROWS[of], one["total"], one["low"], one["high"])
        for of, one in found.items()
        if one is not None and one["between"]
    ]
    return {
        "name": name,
        "words": report.SCORES[name],
        "explained": EXPLAINED[name],
        "picture": page_figures.spans(name, spans) if spans else "",
        **found,
    }


def cell(summary: Mapping[str, Any], of: str, name: str) -> dict[str, Any] | None:
    """A score as numbers and as text; None where there is none."""
    total = summary.get("scores", {}).get(of, {}).get(name)
    if total is None or not math.isfinite(total):
        return None
    low, high = summary.get("intervals", {}).get(of, {}).get(name) or (math.nan, math.nan)
    unit = measure(name).unit
    between = f"{number(low, unit)} to {number(high, unit)}" if low == low else ""
    return {"total": total, "low": low, "high": high, "text": number(total, unit), "between": between}


def _further(summary: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """All other scores, by what they are shown with."""
    groups = grouped(name for name in _scored(summary) if name not in PUBLISHED)
    return {group: [_row(summary, name) for name in names] for group, names in groups.items()}


def _row(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    counts = [summary.get("items", {}).get(of, {}).get(name, 0) for of in report.ROWS]
    known = measure(name)
    cells = {of: cell(summary, of, name) for of in report.ROWS}
    return {"name": name, "words": known.words, "unit": known.unit, "items": max(counts) or NOTHING, **cells}


# ------------------------------------------------------------------------------------------ along the sequence


def curve(found: Found) -> dict[str, Any]:
    """What `report.plot_curve` draws, from the run's files."""
    n_edits, along = int(found.config.get("dataset.n_edits", 1)), found.summary.get("along", {}).get("so_far", [])
    last = {of: by_batch(found.scores.get(of, {}), n_edits) for of in report.ROWS}
    count = max(found.rows[-1]["batch"] + 1 if found.rows else 0, *(len(one["ES"]) for one in last.values() if one), 0)
    own = {name: [math.nan] * count for name in PUBLISHED if any(_is_number(row.get(name)) for row in found.rows)}
    for row in found.rows:
        for name, values in own.items():
            values[row["batch"]] = float(row[name]) if _is_number(row.get(name)) else math.nan
    return {
        "edits": [n_edits * (j + 1) for j in range(count)],
        "after_own": own,
        "after_last": last["edited"],
        "so_far": {
            name: [one.get(name, math.nan) for one in along] for name in PUBLISHED if along and name in along[0]
        },
        "so_far_edits": [one["edits"] for one in along],
        "unedited": last["unedited"],
    }


def by_batch(scores: Scores, n_edits: int) -> dict[str, list[float]]:
    """Mean of each published score in each batch, in percent; items of other prompts go with their fact."""
    if "ES" not in scores:
        return {}
    places = {item: place for place, item in enumerate(scores["ES"].items)}
    count = -(-len(places) // n_edits)
    found = {}
    for name in PUBLISHED:
        if name in scores:
            held: list[list[float]] = [[] for _ in range(count)]
            for item, value in zip(scores[name].items, scores[name].values.tolist(), strict=True):
                place = places.get(item, places.get(item.rpartition(" #")[0]))
                if place is not None:
                    held[place // n_edits].append(value)
            found[name] = [100 * sum(one) / len(one) if one else math.nan for one in held]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lines(drawn: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines that are there: a name for people, and how they are drawn."""
    return [line for key, line in report.LINES.items() if drawn.get(key)]


def _batches(drawn: Mapping[str, Any]) -> dict[str, Any] | None:
    """The curves' numbers; None where there are too many to be read, or none."""
    columns = [
        (f"{name}, {report.LINES[key][0]}", drawn[key][name])
        for name in PUBLISHED
        for key in ("unedited", "after_own", "after_last")
        if name in drawn[key]
    ]
    if not columns or not 1 < len(drawn["edits"]) <= MOST_BATCHES:
        return None
    rows = [
        (edits, [number(values[place], "%") for _, values in columns]) for place, edits in enumerate(drawn["edits"])
    ]
    return {"head": [words for words, _ in columns], "rows": rows}


def _ability(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """General ability in between, where it was asked for: a row for each time."""
    found = summary.get("along", {}).get("ability", [])
    names = [name for name in found[0] if name != "edits"] if found else []
    if not names:
        return None
    rows = [(one["edits"], [number(one.get(name, math.nan), measure(name).unit) for name in names]) for one in found]
    return {"head": names, "rows": rows}
