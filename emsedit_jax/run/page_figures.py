"""The pictures of a run's page, as SVG that stands inside it: texts take the page's font, colours are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from emsedit_jax.run import report

INK = "#010203"  # stands for the colour of the page's text while matplotlib draws
STYLE = {
    "svg.fonttype": "none",  # texts stay texts
    "svg.hashsalt": "emsedit_jax",  # or names of parts would be drawn anew each time
    "font.size": 8.0,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}
COLORS = {INK: "currentColor"} | {color.lower(): f"var(--{name.lower()})" for name, color in report.COLORS.items()}
DASHES = {"-": "", "--": "7 4", "-.": "8 3 2 3", ":": "2 3"}
MOST_COLUMNS = 60  # of a strip
Number = float | int  # JSON has both


def curve_panels(curve: Mapping[str, Any]) -> dict[str, Markup]:
    """A picture for each score that has a line; `curve` as in `report.plot_curve`."""
    names = [name for name in report.SCORES if any(curve.get(key, {}).get(name) for key in report.LINES)]
    return {name: _panel(name, curve) for name in names}


def _panel(name: str, curve: Mapping[str, Any]) -> Markup:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4, 2.3))
        FigureCanvasSVG(figure)
        panel = figure.subplots()
        report.draw_panel(panel, name, curve)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.subplots_adjust(left=0.1, right=0.985, bottom=0.17, top=0.97)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return inline(drawn.getvalue(), f"curve-{name.lower()}", f"{name} along the sequence", _told(name, curve))


def _told(name: str, curve: Mapping[str, Any]) -> str:
    """The lines in words, for who does not see them."""
    found = []
    for key, (label, _) in report.LINES.items():
        values = [value for value in curve.get(key, {}).get(name, ()) if value == value]
        if values:
            found.append(f"{label}: {values[0]:.0f} % at first, {values[-1]:.0f} % at last")
    return "; ".join(found) + "."


def inline(svg: str, name: str, title: str, words: str) -> Markup:
    """matplotlib's SVG as a part of a page: no names that others may have, no fonts, the page's colours."""
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    body = svg[svg.index(">", size.end()) + 1 : svg.rindex("</svg>")]
    body = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    body = re.sub(r" *font-family: [^;\"]*;?", "", body)
    for color, here in COLORS.items():
        body = body.replace(color, here)
    return _svg(Markup(size[0]), title, f"{title}. {words}", Markup(re.sub(r"\s*\n\s*", "\n", body)))


def _svg(attributes: Markup, title: str, words: str, body: Markup) -> Markup:
    """`title` is for who points at it, `words` for who does not see it."""
    return Markup('<svg {} role="img" aria-label="{}"><title>{}</title>{}</svg>').format(attributes, words, title, body)


def _stretched(width: Number, height: Number) -> Markup:
    """Attributes of a picture of rectangles alone, which fills whatever place it is given."""
    return Markup('viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" shape-rendering="crispEdges"').format(
        width, height
    )


def _bar(x: Number, y: Number, width: Number, height: Number, fill: str, opacity: Number = 1) -> Markup:
    return Markup('<rect x="{:.4g}" y="{:g}" width="{:.4g}" height="{:g}" fill="{}" fill-opacity="{:.2g}"/>').format(
        x, y, width, height, fill, opacity
    )


def sample(style: str) -> Markup:
    """A piece of a line, for a legend; who does not see it needs none."""
    return Markup(
        '<svg viewBox="0 0 36 6" width="36" height="6" aria-hidden="true" focusable="false"><path d="M0 3H36" '
        'stroke="currentColor" stroke-width="2" stroke-dasharray="{}"/></svg>'
    ).format(DASHES[style])


def spans(name: str, found: Sequence[tuple[str, Number, Number, Number]]) -> Markup:
    """A score's totals with their intervals between 0 and 100, one above the other: (model, total, low, high) of each.

    The first of two is the unedited model's.
    """
    rows = []
    for place, (_, total, low, high) in enumerate(found):
        color = "currentColor" if len(found) > 1 and place == 0 else f"var(--{name.lower()})"
        y = 12 * place
        rows += [_bar(0, y + 4.5, 100, 1, "currentColor", 0.2), _bar(low, y + 2, high - low, 6, color, 0.4)]
        rows.append(_bar(total - 0.6, y, 1.2, 10, color))
    words = "; ".join(f"{model} {total:.1f} %, between {low:.1f} and {high:.1f}" for model, total, low, high in found)
    return _svg(_stretched(100, 12 * len(found) - 2), words, f"{name}: {words}", Markup("").join(rows))


def parts(found: Mapping[str, Number], words: str) -> Markup:
    """Parts of a whole side by side, coloured by their places: `--part-0`, ..."""
    whole, x, bars = sum(found.values()) or 1.0, 0.0, []
    for place, value in enumerate(found.values()):
        width = 100 * value / whole
        bars.append(_bar(x, 0, width, 10, f"var(--part-{place})"))
        x += width
    return _svg(_stretched(100, 10), words, words, Markup("").join(bars))


def strip(values: Sequence[Number], top: Number, words: str) -> Markup:
    """Values along the sequence as shades of one colour, full at `top`; of many, neighbours are averaged."""
    found = averaged(values)
    cells = [
        _bar(place, 0, 1, 1, "var(--shade)", max(value, 0.0) / top)
        for place, value in enumerate(found)
        if value == value and top > 0
    ]
    return _svg(_stretched(len(found), 1), words, words, Markup("").join(cells))


def averaged(values: Sequence[Number]) -> list[float]:
    """At most `MOST_COLUMNS` means of neighbours, all of as many but for the last."""
    size = -(-len(values) // MOST_COLUMNS) or 1
    chunks = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(chunk) / len(chunk) for chunk in chunks]
