"""A comparison of runs as a picture: a panel for each group of scores, a point with its interval for each model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emsedit_jax.measure.scores import measure
from emsedit_jax.run import storing
from emsedit_jax.run.compare_runs import Column, Comparison
from emsedit_jax.run.compare_table import grouped, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# apart also for colour-blind eyes; so many shapes that a colour that comes again has another one
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<"
UNEDITED = "0.55"  # grey
WIDTH, POINT, LINE, SPARE = 8.0, 0.16, 0.15, 0.75  # inches: picture; a point, a line of a label; a panel's title, axis
LABEL = 34  # letters of a label's line
LONG = 9.0  # inches of panels that go into two columns


def plot(path: Path, found: Comparison) -> None:
    """Draws all scores of all models into the PNG `path`, which is replaced whole.

    Raises:
        InputError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    panels = _panels(found)
    heights = [_height(panel, len(found.columns)) for panel in panels]
    parts = _in_columns(heights)
    height = max(sum(heights[part]) for part in parts) + 0.5
    figure = Figure(figsize=(WIDTH * len(parts), height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    for column, part in zip(np.ravel(figure.subfigures(1, len(parts), squeeze=False)), parts, strict=True):
        axes = column.subplots(part.stop - part.start, 1, squeeze=False, height_ratios=heights[part])[:, 0]
        for axis, panel in zip(axes, panels[part], strict=True):
            _draw(axis, panel, found)
    runs = [run.name for run in found.runs]
    samples = [Line2D([], [], **_style(column, runs)) for column in found.columns]
    words = [_shown(column) for column in found.columns]
    beside = max(1, min(len(words), 80 * len(parts) // (4 + max(map(len, words)))))
    figure.legend(samples, words, loc="outside upper center", ncols=beside, fontsize=9, frameon=False)
    with storing.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


class Panel(NamedTuple):
    """Scores of one group and one unit."""

    title: str
    unit: str
    names: list[str]
    labels: list[str]


def _panels(found: Comparison) -> list[Panel]:
    panels: dict[tuple[str, str], list[str]] = {}
    for group, names in grouped(name for column in found.columns for name in column.cells).items():
        for name in names:
            panels.setdefault((group, measure(name).unit), []).append(name)
    return [Panel(group, unit, names, [_label(name) for name in names]) for (group, unit), names in panels.items()]


def _label(name: str) -> str:
    return "\n".join([name, *textwrap.wrap(measure(name).words, LABEL)])


def _height(panel: Panel, n_models: int) -> float:
    """Inches of a panel in which neither points nor labels overlap."""
    lines = max(label.count("\n") + 1 for label in panel.labels)
    return SPARE + len(panel.names) * max(POINT * (n_models + 1), LINE * (lines + 0.5))


def _in_columns(heights: Sequence[float]) -> list[slice]:
    """The panels in one column, or in two of about the same height where one would be long."""
    if len(heights) < 2 or sum(heights) < LONG:
        return [slice(0, len(heights))]
    middle = min(range(1, len(heights)), key=lambda m: max(sum(heights[:m]), sum(heights[m:])))
    return [slice(0, middle), slice(middle, len(heights))]


def _shown(column: Column) -> str:
    """The model's name, as it is: matplotlib reads formulas, and leaves out what begins with "_"."""
    letters = [letter for letter in heading(column) if letter.isprintable()]
    return " " * (letters[:1] == ["_"]) + "".join(letters).replace("$", "\\$")


def _draw(axis: Axes, panel: Panel, found: Comparison) -> None:
    """One panel: a line for each score, in it a point for each model."""
    runs, n_models = [run.name for run in found.runs], len(found.columns)
    for place, column in enumerate(found.columns):
        shift = (place - (n_models - 1) / 2) * 0.8 / n_models
        cells = [(m + shift, column.cells[name]) for m, name in enumerate(panel.names) if name in column.cells]
        heights, totals = [height for height, _ in cells], [cell.total for _, cell in cells]
        below = [max(cell.total - cell.low, 0.0) for _, cell in cells]
        above = [max(cell.high - cell.total, 0.0) for _, cell in cells]
        axis.errorbar(totals, heights, xerr=[below, above], capsize=2.5, elinewidth=1.4, **_style(column, runs))
    axis.set_yticks(range(len(panel.names)), panel.labels, fontsize=8)
    axis.set_ylim(len(panel.names) - 0.5, -0.5)
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_xlabel(panel.unit, fontsize=8, labelpad=1)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _style(column: Column, runs: Sequence[str]) -> dict[str, Any]:
    """How a model's points look: hollow for an unedited one."""
    number = None if column.run is None else runs.index(column.run)
    color = UNEDITED if number is None else COLORS[number % len(COLORS)]
    return {
        "color": color,
        "marker": "o" if number is None else MARKERS[number % len(MARKERS)],
        "markerfacecolor": color if column.edited else "white",
        "markersize": 5,
        "linestyle": "none",
    }
