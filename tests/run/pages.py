"""Pages of runs: made of workdirs written by hand, and taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from emsedit_jax.measure.scores import Score, Scores
from emsedit_jax.run import items, page, storing, workdir
from emsedit_jax.run.metrics import Metrics
from tests.run import tiny

VOID = ("meta", "link", "br", "rect", "path", "use", "image")  # without an end; those of pictures may have one


class Outline(HTMLParser):
    """What a page is made of; fails where its parts do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str | None] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] or "" for name in ("href", "src") if name in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)


def text_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def made(
    folder: Path,
    summary: Mapping[str, Any] | None = None,
    scores: Mapping[str, Scores] | None = None,
    rows: Iterable[Mapping[str, Any]] = (),
    **config: Any,
) -> str:
    """Writes a workdir by hand; returns its page's text. `config`: fields by their full names."""
    flags = [f"--config.{name}={value}" for name, value in config.items()]
    opened = workdir.open_workdir(folder, tiny.command(*flags).config)
    if scores is not None:
        items.write(opened.scores, scores)
    kept = Metrics(opened.metrics)
    for row in rows:
        kept.add(row)
    if summary is not None:
        storing.write_json(opened.summary, summary)
    page.write(opened)
    return text_of(folder)


def score(*values: float, names: Sequence[str] = ()) -> Score:
    return Score(np.array(values, np.float64), tuple(names or (f"mine.json row {m}" for m in range(len(values)))))
