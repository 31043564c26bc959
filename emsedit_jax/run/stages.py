"""What of a run is done already: a run that was broken off goes on where its stage has last saved its state."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.measure.scores import Score, Scores
from emsedit_jax.run import stopping, storing
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.prepare import say
from emsedit_jax.run.workdir import Workdir

T = TypeVar("T")


class Stages:
    """Each stage's result as a small JSON file beside the run's own, with the seconds that it took."""

    def __init__(self, folder: Workdir, clock: PhaseClock, every: int, of: str = ""):
        """
        Args:
          every: edit batches between two checkpoints of a stage.
          of: what the stages are made of beside the config; a run does not go on with another.
        """
        self._folder, self._clock, self._every, self._of = folder, clock, every, of
        self._path = folder.stages
        self._logged = 0  # bytes of the metrics that belong to finished stages
        if sharding.is_first():
            with storing.writing(self._path):
                self._path.mkdir(exist_ok=True)

    def reach(
        self,
        name: str,
        make: Callable[[Keeper], T],
        plain: Callable[[T], Any],
        back: Callable[[Any], T],
        odd: Callable[[Mapping[str, Any]], str] = lambda place: "",
    ) -> T:
        """The stage's result: from its file if it was finished, else made now and written down.

        Args:
          name: of the stage; the stages come in the same order in every run.
          make: given the keeper of its checkpoints, from which it goes on.
          plain, back: the result as JSON holds it, and the other way; `back` may read the run's other files.
          odd: why the stage cannot go on from a place that a checkpoint is of; "" where it can.
        """
        path = self._path / f"{name}.json"
        if sharding.agreed(path.exists()):
            found = _read(path)
            self._check(found["of"])
            self._clock.credit(found["seconds"])
            self._logged = found["metrics_bytes"]
            say("resumed", f"{name}: done before")
            return back(found["result"])
        stopping.poll()
        before = self._clock.summary()
        keeper = Keeper(self._path / f"{name}.checkpoints", self._every, self._clock, self._folder.metrics, self._of)
        logged = keeper.begin(odd)
        if keeper.found is not None:
            self._check(keeper.found.place["of"])
        self._logged = self._logged if logged is None else logged
        self._drop_unfinished_metrics()
        result = make(keeper)
        seconds = {part: value - before[part] for part, value in self._clock.summary().items()}
        metrics = self._folder.metrics
        self._logged = metrics.stat().st_size if metrics.exists() else 0
        entry = {"of": self._of, "seconds": seconds, "metrics_bytes": self._logged, "result": plain(result)}
        storing.write_json(path, entry)
        keeper.end()
        return result

    def finish(self) -> None:
        """The run is done; what its stages left is in its own files."""
        remove_stages(self._folder)

    def _check(self, of: str) -> None:
        if of != self._of:
            raise InputError(
                f"{self._folder.path}: the model or the facts are others than when this run was begun; give them back, "
                "or name another --workdir."
            )

    def _drop_unfinished_metrics(self) -> None:
        """Rows of a stage that was broken off, from behind what it saved."""
        metrics = self._folder.metrics
        with storing.writing(metrics):
            if sharding.is_first() and metrics.exists() and metrics.stat().st_size > self._logged:
                with metrics.open("rb+") as file:
                    file.truncate(self._logged)


def remove_stages(folder: Workdir) -> None:
    """Removes what the stages of a finished run left, if it is there."""
    if sharding.is_first() and folder.stages.exists():
        with storing.writing(folder.stages):
            shutil.rmtree(folder.stages)


def plain_scores(scores: Scores) -> dict[str, Any]:
    """Scores as JSON holds them, every float as it is."""
    return {name: score._asdict() for name, score in scores.items()}


def scores_from(plain: Mapping[str, Any]) -> dict[str, Score]:
    """The way back."""
    return {name: Score(np.array(found["values"], np.float64), tuple(found["items"])) for name, found in plain.items()}


def _read(path: Path) -> dict[str, Any]:
    found = storing.read_json(path, "remove it, and the stage is done again")
    return {name: found[name] for name in ("of", "seconds", "metrics_bytes", "result")}
