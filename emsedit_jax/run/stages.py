"""What of a run is done already: a run that was broken off goes on where its stage has last saved its state.

A stage whose result was damaged meanwhile is done again, from the newest checkpoint that is left of it, and so is all
that was made of it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from emsedit_jax import disk, sharding
from emsedit_jax.errors import InputError
from emsedit_jax.measure.scores import Score, Scores
from emsedit_jax.run import inputs, rows, stopping, storing
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.prepare import say
from emsedit_jax.run.workdir import Workdir

T = TypeVar("T")
SPARE = 1  # checkpoints of a stage that others are made of, kept until the run is finished


class Lost(Exception):
    """A stage's result is not what was written any more; says why."""


class Stages:
    """Each stage's result as a small JSON file beside the run's own, with the seconds that it took."""

    def __init__(self, folder: Workdir, clock: PhaseClock, every: int, of: Mapping[str, str] = MappingProxyType({})):
        """
        Args:
          every: edit batches between two checkpoints of a stage.
          of: what the stages are made of beside the config, part by part; a run does not go on with another.
        """
        self._folder, self._clock, self._every, self._of = folder, clock, every, of
        self._path = folder.stages
        self._logged = 0  # bytes of the metrics that belong to finished stages
        self._reached: list[str] = []
        if sharding.is_first():
            with storing.writing(self._path):
                self._path.mkdir(exist_ok=True)
                disk.sync_folder(folder.path)

    def reach(
        self,
        name: str,
        make: Callable[[Keeper], T],
        plain: Callable[[T], Any],
        back: Callable[[Any], T],
        *,
        odd: Callable[[Mapping[str, Any]], str] = lambda place: "",
        alone: bool = False,
        without: Collection[str] = (),
    ) -> T:
        """The stage's result: from its file if it was finished, else made now and written down.

        Args:
          name: of the stage; the stages come in the same order in every run.
          make: given the keeper of its checkpoints, from which it goes on.
          plain, back: the result as JSON holds it, and the other way; `back` may read the run's other files, and raise
            Lost where one is damaged.
          alone: no other stage is made of it, and it logs no metrics.
          without: parts of what the run is made of that the stage takes nothing from.
          odd: why the stage cannot go on from a place that a checkpoint is of; "" where it can.
        """
        self._reached.append(name)
        of = {part: digest for part, digest in self._of.items() if part not in without}
        path = self._path / f"{name}.json"
        if sharding.agreed(path.exists()):
            known = self._known(name, path, back, of)
            if not isinstance(known, Lost):
                return known
            self._give_up(known, name, path, alone)
        stopping.poll()
        before = self._clock.summary()
        keeper = Keeper(self._path / f"{name}.checkpoints", self._every, self._clock, self._folder.metrics, of)
        logged = keeper.begin(odd)
        if keeper.found is not None:
            self._check(keeper.found.place["of"], of)
        if not alone:
            rows.drop(self._folder.metrics, self._logged if logged is None else logged)
        result = make(keeper)
        seconds = {part: value - before[part] for part, value in self._clock.summary().items()}
        if not alone:
            self._logged = rows.settled(self._folder.metrics)
        entry = {"of": of, "seconds": seconds, "metrics_bytes": self._logged, "result": plain(result)}
        storing.write_json(path, entry)
        keeper.end(0 if alone else SPARE)
        return result

    def _known(self, name: str, path: Path, back: Callable[[Any], T], of: Mapping[str, str]) -> T | Lost:
        """The result as it was written down, or why it is lost; all processes find the same."""
        try:
            found = _read(path)
            self._check(found["of"], of)
            result: T | Lost = back(found["result"])
        except Lost as lost:
            found, result = {}, lost
        if not sharding.agreed(not isinstance(result, Lost)):
            return result if isinstance(result, Lost) else Lost("another process reads it otherwise")
        if isinstance(result, Lost):
            raise InputError(f"{result}: it is not the same to all processes.")
        self._clock.credit(found["seconds"])
        self._logged = rows.left(self._folder.metrics, found["metrics_bytes"])
        if self._logged != found["metrics_bytes"]:
            storing.write_json(path, found | {"metrics_bytes": self._logged})
        say("resumed", f"{name}: done before")
        return result

    def _give_up(self, lost: Lost, name: str, path: Path, alone: bool) -> None:
        """Says what is lost, and removes the stage's result and what was made of it, which is removed first."""
        if not sharding.is_first():
            return
        with storing.writing(self._path):
            others = [one for one in self._path.iterdir() if one.name.partition(".")[0] not in ["", *self._reached]]
            made_of_it = [] if alone else sorted(one.name.partition(".")[0] for one in others)
            what = " and ".join(dict.fromkeys([name, *made_of_it]))
            say("warning", f"{lost}: done again, from the last checkpoint that is left or anew: {what}")
            for one in [] if alone else others:
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            path.unlink()

    def finish(self) -> None:
        """The run is done; what its stages left is in its own files."""
        remove_stages(self._folder)

    def _check(self, there: Any, here: Mapping[str, str]) -> None:
        """Raises InputError where a stage was made of something else than this run has."""
        if not isinstance(there, Mapping):
            raise InputError(f"{self._folder.path}: an earlier version began this run; name another --workdir.")
        if odd := inputs.differing(there, here):
            raise InputError(
                f"{self._folder.path}: not the same as when this run was begun: {', '.join(odd)}; give back what it "
                "was, or name another --workdir."
            )


def remove_stages(folder: Workdir) -> None:
    """Removes what the stages of a finished run left, if it is there."""
    while sharding.is_first() and folder.stages.exists():
        with storing.writing(folder.stages), contextlib.suppress(FileNotFoundError):  # another removes it as well
            shutil.rmtree(folder.stages)


def plain_scores(scores: Scores) -> dict[str, Any]:
    """Scores as JSON holds them, every float as it is."""
    return {
        name: {"values": _exact(score.values.tolist()), "items": list(score.items)} for name, score in scores.items()
    }


def _exact(values: Any) -> Any:
    """Lists of floats with what JSON has no numbers for in words: numpy reads "inf" and "nan"."""
    if isinstance(values, list):
        return [_exact(value) for value in values]
    return values if math.isfinite(values) else str(values)


def scores_from(plain: Mapping[str, Any]) -> dict[str, Score]:
    """The way back."""
    return {name: Score(np.array(found["values"], np.float64), tuple(found["items"])) for name, found in plain.items()}


def _read(path: Path) -> dict[str, Any]:
    """Raises Lost."""
    try:
        found = storing.read_json(path, "it is not used")
    except InputError as error:
        raise Lost(str(error).removesuffix(".")) from None
    return {name: found[name] for name in ("of", "seconds", "metrics_bytes", "result")}
