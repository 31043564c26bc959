"""Where a run's time and memory go: wall seconds by phase, XLA's compilation counted apart, and peaks of memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from emsedit_jax.run import resources
from emsedit_jax.run.resources import CompileClock

PHASES = ("train", "edit", "score")


class PhaseClock:
    """Adds up the seconds of each phase without what was spent compiling inside it.

    Work that a phase has not waited for is billed to the phase that does.
    """

    def __init__(self, compiling: CompileClock):
        self._compiling, self._started = compiling, time.monotonic()
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.peaks: dict[str, dict[str, float]] = {}  # of phases in which the process's peaks rose: how far, in MB
        self._open: list[tuple[str, float, float]] = []  # name, when it began, seconds compiled before it
        self._before = {"compile": 0.0, "total": 0.0}  # of a run that this one goes on with

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Bills the block to `name`."""
        one, held = (name, time.monotonic(), self._compiling.seconds), resources.peaks_mb()
        self._open.append(one)
        try:
            yield
            self.seconds[name] += self._so_far(one)
            risen = {where: mb for where, mb in resources.peaks_mb().items() if mb > held.get(where, 0.0)}
            if risen:
                self.peaks.setdefault(name, {}).update(risen)
        finally:
            self._open.remove(one)

    def _so_far(self, one: tuple[str, float, float]) -> float:
        """Seconds of a phase that is open."""
        _, began, compiled = one
        return time.monotonic() - began - (self._compiling.seconds - compiled)

    def credit(self, seconds: Mapping[str, float]) -> None:
        """Adds what a part of the run took before it was broken off, as `summary` had it."""
        for name, value in seconds.items():
            known = self.seconds if name in self.seconds else self._before
            known[name] += value

    def summary(self) -> dict[str, float]:
        """Seconds by phase, of compilation, and in total since the clock was made."""
        known = dict(self.seconds)
        for one in self._open:
            known[one[0]] += self._so_far(one)
        rest = {"compile": self._compiling.seconds, "total": time.monotonic() - self._started}
        rest = {name: seconds + self._before[name] for name, seconds in rest.items()}
        return {name: round(seconds, 3) for name, seconds in (known | rest).items()}
