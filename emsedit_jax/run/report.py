"""What a person sees at the end: the scores, facts in the model's own words, and the curve along the sequence."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emsedit_jax.measure.scores import measure
from emsedit_jax.run import storing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES = {"ES": "edited prompts", "GS": "other wordings", "LS": "unrelated facts"}
ROWS = {"unedited": "unedited", "edited": "after editing"}  # of summary["scores"]: its keys, and their names for people

COLORS = {"ES": "#0072B2", "GS": "#D55E00", "LS": "#009E73"}  # apart also for colour-blind eyes
MARKERS = {"ES": "o", "GS": "s", "LS": "^"}
Style = Literal["-", "--", "-.", ":"]
LINES: dict[str, tuple[str, Style]] = {  # of a curve: its key, its name for people, how it is drawn
    "after_own": ("right after its own edit", "-"),
    "after_last": ("after the last edit", "--"),
    "so_far": ("all edits so far", "-."),
    "unedited": ("unedited", ":"),
}


class Example(NamedTuple):
    """One fact in the model's own words: greedy continuations of `prompt` before and after editing."""

    prompt: str
    target: str  # the answer that was written
    before: str
    after: str


def print_table(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """The scores of `summary` in percent, before and after, with the cost beneath.

    Args:
        summary: as in summary.json: `scores.{unedited,edited}.{ES,GS,LS}`, `edits`, `seconds`, `peak_rss_mb`.
    """
    console = console or Console()
    table = Table(title=f"{summary['edits']} edits: answer tokens right, %", title_justify="left")
    table.add_column("model")
    for name, words in SCORES.items():
        table.add_column(f"{name}\n{words}", justify="right")
    for key, words in ROWS.items():
        if key in summary["scores"]:
            table.add_row(words, *(_percent(summary["scores"][key].get(name)) for name in SCORES))
    console.print(table)
    print_further(summary, console)
    console.print(cost_line(summary), markup=False, highlight=False, soft_wrap=True)


def print_further(summary: Mapping[str, Any], console: Console) -> None:
    """All scores beside the published ones, before and after, with their intervals; nothing where there are none."""
    scores = summary["scores"]
    names = [name for name in dict.fromkeys(name for found in scores.values() for name in found) if name not in SCORES]
    if not names:
        return
    table = Table(title="further scores, with 95 % intervals (draws of whole facts)", title_justify="left")
    table.add_column("score")
    for key in scores:
        table.add_column(ROWS[key], justify="right")
    table.add_column("items", justify="right")
    for name in names:
        known = measure(name)
        cells = [_with_interval(summary, key, name) for key in scores]
        counts = [summary["items"][key].get(name, 0) for key in scores]
        table.add_row(f"{name}{known.unit and f', {known.unit}'}", *cells, str(max(counts)))
    console.print(table)
    console.print("docs/SCORES.md explains each score", markup=False, highlight=False, style="dim")


def _with_interval(summary: Mapping[str, Any], key: str, name: str) -> str:
    """`12.3 (10.1 to 14.4)`, or a dash."""
    value = summary["scores"][key].get(name)
    if value is None or value != value:
        return "-"
    low, high = summary["intervals"][key][name]
    digits = 1 if measure(name).unit in ("%", "points") else 2
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def cost_line(summary: Mapping[str, Any]) -> str:
    """Seconds per edit, peak memory, and where the time went, in words."""
    seconds, edits = summary["seconds"], max(int(summary["edits"]), 1)
    parts = [f"{seconds['edit'] / edits:.3g} s per edit"] if seconds.get("edit") else []
    parts.append(f"peak memory {summary['peak_rss_mb'] / 1024:.2f} GB")
    if summary.get("peak_device_mb"):
        parts.append(f"on the device {summary['peak_device_mb'] / 1024:.2f} GB")
    if summary.get("ledger"):
        parts.append(f"ledger {summary['ledger']['bytes'] / 1e6:,.1f} MB")
    known = {name: seconds[name] for name in ("train", "edit", "score", "compile") if seconds.get(name)}
    rest = {"rest": seconds["total"] - sum(known.values())} if known else {}
    spent = [f"{name} {value:.1f} s" for name, value in (known | rest).items()]
    total = f"total {seconds['total']:.1f} s"
    parts.append(f"{total} ({', '.join(spent)})" if spent else total)
    return " · ".join(parts)


def print_examples(examples: Sequence[Example], console: Console | None = None) -> None:
    """Facts in the model's own words, before and after editing."""
    console = console or Console()
    for example in examples:
        console.print()
        prompt, target = one_line(example.prompt), one_line(example.target)
        console.print(Text.assemble((prompt, "bold"), "  -> ", (target, "bold cyan")))
        for words, said in (("before", example.before), ("after", example.after)):
            console.print(Text.assemble((f"  {words:<7}", "dim"), one_line(said) or "(nothing)"))


def plot_curve(path: Path, curve: Mapping[str, Any]) -> None:
    """Draws ES, GS and LS along the sequence, one panel each, into the PNG `path`.

    Args:
        path: the picture; replaced whole.
        curve: `edits`: edits done so far at each point; `after_own`, `after_last`, `so_far` and `unedited`, any of
            which may be left out: per score a value in percent for the facts of each batch - scored right after the
            batch itself was edited in, after the whole sequence, together with all before, and by the unedited model.
            `so_far_edits`: edits at each point of `so_far`, where these are others.

    Raises:
        InputError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(10.5, 3.9), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SCORES), sharey=True)
    for panel, (name, words) in zip(panels, SCORES.items(), strict=True):
        draw_panel(panel, name, curve)
        panel.set_title(f"{name}: {words}", fontsize=10)
    panels[0].set_ylabel("answer tokens right, %")
    drawn = [
        (label, style) for key, (label, style) in LINES.items() if any(name in curve.get(key, {}) for name in SCORES)
    ]
    samples = [Line2D([], [], color="0.3", linestyle=style, label=label) for label, style in drawn]
    figure.legend(handles=samples, loc="outside lower center", ncols=max(len(samples), 1), fontsize=9, frameon=False)
    with storing.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def draw_panel(panel: Axes, name: str, curve: Mapping[str, Any]) -> None:
    """One score's lines along the sequence; `curve` as in `plot_curve`."""
    edits = list(curve["edits"])
    places = {"so_far": list(curve.get("so_far_edits") or edits)}  # may be scored after every so many batches alone
    mark_every = max(1, len(edits) // 12)
    for key, (label, style) in LINES.items():
        values = curve.get(key, {}).get(name)
        if values is not None:
            marker = MARKERS[name] if key == "after_own" else None
            panel.plot(
                places.get(key, edits), values, style, color=COLORS[name], label=label, linewidth=1.8,
                marker=marker, markersize=4.5, markevery=mark_every, alpha=0.7 if key == "unedited" else 1.0,
            )  # fmt: skip
    panel.set_xlabel("edits so far")
    panel.set_ylim(-3, 103)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.1f}"


def one_line(text: str) -> str:
    """Without control characters, which a model may say and a terminal would obey."""
    shown = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
    return " ".join(shown.split())
