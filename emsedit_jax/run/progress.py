"""How far the work is: a bar with rate and time left on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from emsedit_jax import sharding

EVERY_SHARE = 0.1  # a plain line at every tenth of the way, ...
AT_LEAST_S, AT_MOST_S = 1.0, 10.0  # ... but not more often than the first, and not more seldom than the second


@runtime_checkable
class Tracker(Protocol):
    def advance(self, n: int = 1, **shown_metrics: float) -> None:
        """Says that `n` more units are done, with what to show beside them (`loss=2.31`)."""
        ...


@contextlib.contextmanager
def track(
    total: int,
    label: str,
    unit: str = "edits",
    *,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Tracker]:
    """Shows progress over `total` units on stderr, which leaves stdout to the tables.

    with track(100, "editing", "edits") as progress:
        progress.advance(10, loss=2.31)
    """
    console = console or Console(stderr=True, quiet=not sharding.is_first())
    if console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as progress:
            yield _Bar(progress, progress.add_task(label, total=total, unit=unit, rate="", shown=""), unit, clock)
    else:
        yield _Lines(total, label, unit, console, clock)


class Batchwise:
    """Progress over batches that take several passes each: units are done with the passes, and all with the batch."""

    def __init__(self, progress: Tracker):
        self._progress = progress
        self._begun: collections.deque[_Begun] = collections.deque()

    def batch(self, units: int, parts: int) -> None:
        """A batch of so many units begins, in so many passes; others may not be done yet."""
        self._begun.append(_Begun(units, parts))

    def next_pass(self) -> None:
        """A pass over the last batch begins: those before it are done."""
        one = self._begun[-1]
        self._show(one, one.units * one.done // one.parts)
        one.done += 1

    def end(self) -> None:
        """The first batch that was not done is."""
        one = self._begun.popleft()
        self._show(one, one.units)

    def _show(self, one: _Begun, units: int) -> None:
        if units > one.shown:
            self._progress.advance(units - one.shown)
            one.shown = units


@dataclasses.dataclass
class _Begun:
    units: int
    parts: int
    done: int = 0
    shown: int = 0


class _Bar:
    def __init__(self, progress: Progress, task, unit: str, clock: Callable[[], float]):
        self._progress, self._task, self._unit, self._clock = progress, task, unit, clock
        self._start, self._done = clock(), 0

    def advance(self, n: int = 1, **shown_metrics: float) -> None:
        self._done += n
        rate = _rate(self._done, self._clock() - self._start, self._unit)
        self._progress.update(self._task, advance=n, rate=rate, shown=_shown(shown_metrics))


class _Lines:
    def __init__(self, total: int, label: str, unit: str, console: Console, clock: Callable[[], float]):
        self._total, self._label, self._unit, self._console, self._clock = total, label, unit, console, clock
        self._start = self._last_time = clock()
        self._done = self._last_done = 0

    def advance(self, n: int = 1, **shown_metrics: float) -> None:
        self._done += n
        now = self._clock()
        waited, share = now - self._last_time, (self._done - self._last_done) / max(self._total, 1)
        due = waited >= AT_MOST_S or (waited >= AT_LEAST_S and share >= EVERY_SHARE)
        if not due and self._done < self._total:
            return
        self._last_time, self._last_done = now, self._done
        spent = now - self._start
        left = spent / self._done * max(self._total - self._done, 0) if self._done else 0.0
        time_words = f"{_duration(left)} left" if self._done < self._total else f"done in {_duration(spent)}"
        parts = [
            f"{self._label} {self._done}/{self._total} {self._unit}",
            _rate(self._done, spent, self._unit),
            time_words,
            _shown(shown_metrics),
        ]
        self._console.print("  ".join(filter(None, parts)), markup=False, highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False, style="progress.percentage"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[shown]}", markup=False),
        console=console,
    )


def _rate(done: int, seconds: float, unit: str) -> str:
    if done == 0 or seconds <= 0:
        return ""
    rate = done / seconds
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{_one(unit)}"


def _one(unit: str) -> str:
    return unit.removesuffix("es") if unit.endswith(("ches", "sses")) else unit.removesuffix("s")


def _shown(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
