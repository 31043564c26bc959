"""Keeps the state of the stage that a run is in, every so many batches, and gives it back to a run that goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emsedit_jax.errors import Preempted
from emsedit_jax.run import checkpoint, rows, stopping
from emsedit_jax.run.checkpoint import Checkpoints, Saved
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.prepare import say

WORTH_S, USUAL_S = 5.0, 0.1  # so much work that is no batch is saved where saving takes no longer than that


class Keeper:
    """The checkpoints of one stage."""

    def __init__(self, path: Path | None, every: int, clock: PhaseClock, metrics: Path, of: Mapping[str, str]):
        """
        Args:
          path: the stage's own folder; None: nothing is kept.
          every: batches between two checkpoints; 0: only when the run is asked to stop.
          metrics: the file that grows along the stage.
          of: what the stage is made of beside the config, part by part.
        """
        self._checkpoints, self._every = Checkpoints(path) if path is not None else None, every
        self._clock, self._metrics, self._of = clock, metrics, of
        self._done, self._stop, self._saved = 0, False, time.monotonic()
        self._took = 0.0  # seconds of the last saving
        self._before = clock.summary()
        self.found: Saved | None = None  # what a run before this one left

    def begin(self, odd: Callable[[Mapping[str, Any]], str] = lambda place: "") -> int | None:
        """Looks for what was saved; gives the length of the metrics that belong to it.

        `odd`: why a place is none to go on from; "" where it is one.
        """
        if self._checkpoints is None:
            return None
        self.found, wrong = self._checkpoints.newest(odd)
        if wrong:
            say("warning", checkpoint.listed(wrong))
        self._before = self._clock.summary()
        if self.found is None:
            return None
        self._clock.credit(self.found.place["seconds"])
        logged = self.found.place["metrics_bytes"]
        there = rows.left(self._metrics, logged)
        if there != logged:  # the next run counts on these
            self._checkpoints.save(self.found.arrays, {**self.found.place, "metrics_bytes": there})
        return there

    def is_due(self) -> bool:
        """A batch is done; whether to save the state after it."""
        if self._checkpoints is None:
            return False
        self._done += 1
        self._stop = stopping.all_asked()
        return self._stop or (bool(self._every) and self._done % self._every == 0)

    def is_due_at_once(self) -> bool:
        """Something other than a batch is done; whether to save the state after it: what is worth it by its time.

        Where saving takes longer, so much more has to be done in between.
        """
        if self._checkpoints is None:
            return False
        self._stop = stopping.all_asked()
        worth = WORTH_S * max(1.0, self._took / USUAL_S)
        return self._stop or (bool(self._every) and time.monotonic() - self._saved >= worth)

    def save(self, arrays: Mapping[str, np.ndarray], place: Mapping[str, Any]) -> None:
        """Saves the state. Raises Preempted after that, if the run was asked to stop."""
        seconds = {part: value - self._before[part] for part, value in self._clock.summary().items()}
        assert self._checkpoints is not None
        place = {**place, "of": dict(self._of), "seconds": seconds, "metrics_bytes": rows.settled(self._metrics)}
        began = time.monotonic()
        self._checkpoints.save(arrays, place)
        self._saved = time.monotonic()
        self._took = self._saved - began
        if self._stop:
            raise Preempted()

    def end(self, spare: int) -> None:
        """The stage is done; so many checkpoints stay, the newest, in case that its result is damaged."""
        if self._checkpoints is not None and spare:
            self._checkpoints.thin(spare)
            self._checkpoints.close()
        elif self._checkpoints is not None:
            self._checkpoints.clear()


def nothing(clock: PhaseClock) -> Keeper:
    """A keeper that keeps nothing."""
    return Keeper(None, 0, clock, Path(), {})
