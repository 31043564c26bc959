"""A comparison of runs in tables, for the terminal and as Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emsedit_jax.measure.intervals import LEVEL
from emsedit_jax.measure.scores import measure
from emsedit_jax.run.compare_runs import ALPHA, PUBLISHED, Cell, Column, Comparison, Difference

_GROUPS = {  # of scores that are shown together: a title, and how their names begin or end
    "answer tokens right": PUBLISHED,
    "along the sequence": (".first", ".middle", ".last"),
    "in the model's own words": (".exact", ".contained"),
    "against another answer": (".likelier", ".margin"),
    "further questions": ("asks.",),
    "drift from the unedited model": (".same", ".kl"),
    "text": ("fluency", "perplexity"),
}
_ABILITY = "general ability"
_MISSING = "-"
FOOTNOTE = (
    f"In brackets: {100 * LEVEL:.0f} % bootstrap intervals; whole facts are drawn, each with all its items, since "
    "items of one fact are not independent. p: two-sided, of swapping the runs fact by fact; corrected (Holm) for all "
    f"tests shown, and called better or worse below {ALPHA}. What another seed would change is in neither."
)


class Sheet(NamedTuple):
    """A table before it is drawn."""

    title: str
    head: tuple[str, ...]
    parts: Mapping[str, list[tuple[str, ...]]]  # rows under a line of their own, or under ""
    texts: int = 1  # columns of text, at the left; numbers stand behind


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Each score once, with those that it is shown with."""
    found: dict[str, list[str]] = {group: [] for group in (*_GROUPS, _ABILITY)}
    for name in dict.fromkeys(names):
        head, dot, tail = name.partition(".")
        keys = {name, f"{head}.", f"{dot}{tail}"}
        found[next((group for group, those in _GROUPS.items() if keys & {*those}), _ABILITY)].append(name)
    return {group: those for group, those in found.items() if those}


def heading(column: Column) -> str:
    """What a person calls the model."""
    if column.run is None:
        return "unedited"
    return column.run if column.edited else f"{column.run}, unedited"


def number(value: float, unit: str, sign: str = "") -> str:
    """A score as people read it; `sign="+"` for differences."""
    if value != value:
        return _MISSING
    return f"{value:{sign}.1f}" if unit in ("%", "points") else f"{value:{sign}.3g}"


def sheets(found: Comparison) -> list[Sheet]:
    """Settings, where they differ; scores; differences."""
    known = [_settings(found)] if found.settings else []
    return [*known, _scores(found), _differences(found)]


def _settings(found: Comparison) -> Sheet:
    rows: list[tuple[str, ...]] = [(name, *map(_plain, values)) for name, values in found.settings.items()]
    head = ("config", *(run.name for run in found.runs))
    return Sheet("Settings that differ", head, {"": rows}, texts=len(head))


def _scores(found: Comparison) -> Sheet:
    parts: dict[str, list[tuple[str, ...]]] = {}
    for group, names in grouped(name for column in found.columns for name in column.cells).items():
        cells = {name: [_cell(column.cells.get(name), name) for column in found.columns] for name in names}
        parts[group] = [(_with_unit(name), *cells[name]) for name in names]
    return Sheet("Scores", ("score", *map(heading, found.columns)), parts | _costs(found))


def _costs(found: Comparison) -> dict[str, list[tuple[str, ...]]]:
    """Seconds of a run and its memory, as its summary tells them; of unedited models nothing."""
    summaries = {run.name: run.summary for run in found.runs}

    def row(words: str, of: Any) -> tuple[str, ...]:
        values = [of(summaries[column.run]) if column.run and column.edited else None for column in found.columns]
        return (words, *(_MISSING if value is None else f"{value:.3g}" for value in values))

    def seconds(phase: str) -> Any:
        return lambda summary: (summary.get("seconds") or {}).get(phase)

    def memory(summary: Mapping[str, Any]) -> float | None:
        return summary["peak_rss_mb"] / 1024 if summary.get("peak_rss_mb") else None

    return {
        "cost": [
            row("edits", lambda summary: summary.get("edits")),
            row("training, s", seconds("train")),
            row("editing, s", seconds("edit")),
            row("peak memory, GB", memory),
        ]
    }


def _differences(found: Comparison) -> Sheet:
    first = found.runs[0].name
    rows = {
        f"{run.name} less {first}": [_row(one) for one in found.differences if one.run == run.name]
        for run in found.runs[1:]
    }
    return Sheet(f"Differences from {first}", ("score", "", "difference", "items", "p", "corrected"), rows, texts=2)


def _row(one: Difference) -> tuple[str, ...]:
    unit = measure(one.score).unit
    moved, low, high = (number(value, unit, "+") for value in (one.difference, one.low, one.high))
    return one.score, one.verdict, f"{moved} [{low},{high}]", str(one.items), _chance(one.p), _chance(one.p_holm)


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell(cell: Cell | None, name: str) -> str:
    if cell is None or cell.total != cell.total:
        return _MISSING
    total, low, high = (number(value, measure(name).unit) for value in (cell.total, cell.low, cell.high))
    return f"{total} [{low},{high}]"


def _with_unit(name: str) -> str:
    unit = measure(name).unit
    return f"{name}, {unit}" if unit else name


def _legend(found: Comparison) -> list[tuple[str, str]]:
    """The scores' names in words, in the table's order."""
    names = grouped(name for column in found.columns for name in column.cells)
    return [(name, measure(name).words) for those in names.values() for name in those]


def _plain(value: Any) -> str:
    """A setting in one line, without what a terminal would obey."""
    text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else _MISSING if value is None else str(value)
    return "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)


# ------------------------------------------------------------------------------------------ drawing


def show(found: Comparison, console: Console | None = None) -> None:
    """Prints the tables and the notes."""
    console = console or Console()
    for note in found.notes:
        console.print(f"note: {_plain(note)}", markup=False, highlight=False)
    for sheet in sheets(found):
        console.print(_drawn(sheet))
    for name, words in _legend(found):
        console.print(f"{name}: {words}", markup=False, highlight=False, style="dim")
    console.print(FOOTNOTE, markup=False, highlight=False)


def _drawn(sheet: Sheet) -> Table:
    table = Table(title=Text(_plain(sheet.title)), title_justify="left")
    for place, name in enumerate(sheet.head):
        justify = "left" if place < sheet.texts else "right"
        table.add_column(Text(_plain(name)), justify=justify, overflow="fold")
    for part, rows in sheet.parts.items():
        if part:
            table.add_section()
            table.add_row(Text(_plain(part), style="bold"))
        for row in rows:
            table.add_row(*map(Text, row))
    return table


def markdown(found: Comparison, picture: str) -> str:
    """The same as Markdown, with the picture of that file name in it."""
    title = f"# {' / '.join(_escaped(run.name) for run in found.runs)}"
    notes = "\n".join(f"- {_escaped(note)}" for note in found.notes)
    legend = "\n".join(f"- {_escaped(name)}: {_escaped(words)}" for name, words in _legend(found))
    shown = f"![scores with their intervals]({picture})"
    parts = [title, *map(_written, sheets(found)), FOOTNOTE, notes, "## What the scores are", legend, shown]
    return "\n\n".join(part for part in parts if part) + "\n"


def _written(sheet: Sheet) -> str:
    rule = ["---"] * sheet.texts + ["---:"] * (len(sheet.head) - sheet.texts)
    lines = [_line(sheet.head), _line(rule, escape=False)]
    for part, rows in sheet.parts.items():
        if part:
            lines.append(_line([f"**{_escaped(part)}**", *[""] * (len(sheet.head) - 1)], escape=False))
        lines += map(_line, rows)
    return f"## {_escaped(sheet.title)}\n\n" + "\n".join(lines)


def _line(cells: Iterable[str], escape: bool = True) -> str:
    return f"| {' | '.join(_escaped(cell) if escape else cell for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"[\\|*`]|\[(?![-+\d])|<(?! )|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])", r"\\\g<0>", _plain(text))
