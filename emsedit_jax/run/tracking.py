"""Sends what a run measures to its trackers: the rows of metrics.jsonl as they come, the scores at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections

from emsedit_jax import sharding
from emsedit_jax.run import metrics, trackers
from emsedit_jax.run.metrics import START, Metrics
from emsedit_jax.run.prepare import say
from emsedit_jax.run.trackers import Tracker
from emsedit_jax.run.workdir import Workdir


class Tracking:
    """Follows metrics.jsonl, which says what counts: rows that a run has dropped as it went on are never sent twice.

    A step is a row's place in that file. The first process alone tracks; a tracker that fails is left out.
    """

    def __init__(self, folder: Workdir, config: ml_collections.ConfigDict):
        self._folder, self._config = folder, config
        self._names = ["tensorboard", *config.track] if sharding.is_first() else []
        self._open: dict[str, Tracker] = {}
        self._metrics = Metrics(folder.metrics)
        self._bytes, self._step = 0, 0  # of the metrics that were sent
        self._seal: str = START  # of the last of them

    def log(self, row: Mapping[str, Any]) -> None:
        """One more row of metrics, to the file and to all trackers."""
        self._metrics.add(row)
        self._follow()

    def end(self, scores: Mapping[str, Mapping[str, float]]) -> str:
        """The scores of the whole run, as a step of their own; returns the seal of the last row of metrics."""
        self._follow()
        self._send({f"scores/{name}": value for name, value in numbers(scores)})
        return self._metrics.seal

    def close(self) -> None:
        """Lets go of the trackers, however the run has ended."""
        for name in list(self._open):
            self._try(name, lambda tracker: tracker.close())
        self._names, self._open = [], {}

    def _follow(self) -> None:
        """Sends the rows behind those that were sent; the first time these are all that there are."""
        path = self._folder.metrics
        if not self._names or not path.exists():
            return
        try:
            with path.open("rb") as file:
                file.seek(self._bytes)
                lines = file.read()
            found, self._seal = metrics.read(lines, self._seal)
            rows = [scalars(row) for row in found]
        except (OSError, ValueError, LookupError, TypeError) as error:  # somebody else has written there
            names = " and ".join(self._names)
            say("warning", f"{path.name} cannot be read ({error}): {names} will have no more of this run's metrics")
            self._names = []
            return
        for row in rows:
            self._send(row)
        self._bytes += len(lines)

    def _send(self, found: Mapping[str, float]) -> None:
        step, self._step = self._step, self._step + 1
        for name in list(self._names):
            self._try(name, lambda tracker: tracker.log(found, step))

    def _try(self, name: str, deed: Callable[[Tracker], None]) -> None:
        """Does it with the tracker, which is made if there is none yet."""
        try:
            if name not in self._open:
                self._open[name] = trackers.OPENERS[name](self._folder, self._config)
            deed(self._open[name])
        except Exception as error:  # of whatever library: no run ends because nobody is told of it
            why = " ".join(str(error).split()) or type(error).__name__
            say(
                "warning", f"{name} fails ({why}): the run goes on without it; {self._folder.metrics.name} has all rows"
            )
            self._names = [one for one in self._names if one != name]
            self._open.pop(name, None)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics: `{"train/shift_norm/1/model.layers.3.mlp.gate_proj": 0.5, ...}`."""
    return {f"{row['phase']}/{name}": value for name, value in numbers(row)}


def numbers(found: Any) -> Iterator[tuple[str, float]]:
    """(path, value) of every finite number in objects and lists."""
    if isinstance(found, Mapping | list):
        for name, inner in found.items() if isinstance(found, Mapping) else enumerate(found):
            yield from ((f"{name}/{path}" if path else str(name), value) for path, value in numbers(inner))
    elif isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
        yield "", float(found)
