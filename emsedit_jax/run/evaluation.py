"""Scoring saved edits again, in stages of its own beside those of the run that made them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from emsedit_jax import sharding
from emsedit_jax.edit.step import no_edit
from emsedit_jax.run import examine, inputs, scoring, settings, storing
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.exam import Exam
from emsedit_jax.run.examine import Examined
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.prepare import Prepared, say
from emsedit_jax.run.stages import Stages
from emsedit_jax.run.workdir import FREE, Workdir
from emsedit_jax.types import Deltas


def asked(
    run: Prepared, questions: Exam, deltas: Deltas, digests: Mapping[str, str], folder: Workdir, clock: PhaseClock
) -> tuple[Examined, Examined]:
    """What the unedited model and the edited one answer; what was asked before it was broken off is not asked again.

    `digests`: of the edits, site by site.

    Raises: Preempted; InputError where the folder cannot be written.
    """
    of = _mark(run, questions, digests)
    _begin(folder, of)
    stages = Stages(Workdir(folder.evaluation / of), clock, run.config.checkpoint.every, {"the evaluation": of})

    def stage(name: str, words: str, under: Deltas, *, edited: bool) -> Examined:
        def make(keeper: Keeper) -> Examined:
            return scoring.ask_all(run, questions, under, clock, words, keeper, edited=edited)

        return stages.reach(name, make, scoring.plain_examined, scoring.examined_from, alone=True)

    before = stage("unedited", "unedited", no_edit(run.editor.sites), edited=False)
    return before, stage("edited", "after editing", deltas, edited=True)


def _mark(run: Prepared, questions: Exam, digests: Mapping[str, str]) -> str:
    """The name of this evaluation: another config, model, data or edits make another."""
    config = [one for one in settings.flatten(storing.plain(run.config.to_dict())) if one[0] not in FREE]
    taken_in = inputs.digests(run, questions, None)
    return examine.mark(config, sorted(taken_in.items()), sorted(digests.items()))[:16]


def _begin(folder: Workdir, of: str) -> None:
    """The folder of this evaluation's stages; what is left of others there is removed."""
    if not sharding.is_first():
        return
    with storing.writing(folder.evaluation):
        (folder.evaluation / of).mkdir(parents=True, exist_ok=True)
        for other in [one for one in folder.evaluation.iterdir() if one.name != of]:
            say("eval", f"what {other} has of an evaluation with other settings, data or edits is removed: begun anew")
            shutil.rmtree(other)


def finish(folder: Workdir) -> None:
    """The evaluation is written down, and nothing of its stages is needed any more."""
    if sharding.is_first():
        with storing.writing(folder.evaluation):
            shutil.rmtree(folder.evaluation)
