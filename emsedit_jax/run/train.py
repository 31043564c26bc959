"""The two loops over edit batches, learning to edit and editing; metrics are read late, while the next batch runs."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.data.scoring import ScorePlan
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure.late import one_late
from emsedit_jax.measure.score import Shares, means, score_edits
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.meta.trajectory import Learning
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.prepare import Prepared, say
from emsedit_jax.run.progress import Batchwise, track
from emsedit_jax.run.watch import Diverged, check, check_update, of_step, step_row, training_row
from emsedit_jax.types import Deltas, MetaState, Stats

Log = Callable[[dict], None]


class Waiting(NamedTuple):
    """A training batch's metrics that are still being computed, and the statistics before it."""

    place: dict
    row: dict
    stats: tuple[Stats, ...]


class Written(NamedTuple):
    """An edit batch whose metrics, like all the rest, are still being computed."""

    j: int
    row: dict
    deltas: Deltas
    state: MetaState


def prompts_of(
    run: Prepared, phase: str, plan: EditPlan, j: int, kind: str, begun: Callable[[], None] = lambda: None
) -> Prompts:
    """One kind of a plan's batch, its prefixes kept in the run's store as far as there is room.

    `begun` is called whenever a pass over the prompts begins.
    """
    batches = plan.batches(j, kind)

    def below(number: int):
        begun()
        return run.prefixes.get((phase, j, kind, number), batches[number])

    return Prompts(batches, below)


# ---------------------------------------------------------------------------------------------- training


def train(run: Prepared, state: MetaState, clock: PhaseClock, log: Log) -> MetaState:
    """Meta-training: trajectories over the training batches, each on the original model.

    With facts held out, each trajectory's networks are tried on them, training stops when they get no better, and the
    best ones are returned.

    Raises: Diverged, with the best networks where facts are held out, else the last good ones.
    """
    if run.learning is None or run.train_plan is None:
        return state
    config = run.config
    passes = config.editor.n_epochs * config.train.n_trajectories
    size = len(run.train_plan) // config.train.n_trajectories
    best = Best(config.train.patience)
    total = passes * size * config.dataset.n_edits
    with clock.phase("train"), track(total, "training", "edits") as progress:
        shown = Batchwise(progress)
        try:
            for number in range(passes):
                first = number % config.train.n_trajectories * size
                batches = range(first, first + size)
                state = _trajectory(run, run.learning, state, run.train_plan, batches, number, log, shown)
                if run.holdout is not None:
                    found = means(try_out(run, state, run.holdout, number))
                    log({"phase": "holdout", "trajectory": number} | found)
                    if best.is_over(number, sum(found.values()) / len(found), state):
                        break
        except Diverged as stop:
            raise Diverged(str(stop), None, best.state or stop.state) from None
        state = jax.block_until_ready(best.state or state)
        run.prefixes.forget("train", "holdout")
    if run.holdout is not None:
        say("networks", best.words(passes))
    return state


class Best:
    """The best networks so far, and for how long there were no better ones."""

    def __init__(self, patience: int):
        self._patience, self._waited, self._score = patience, 0, -np.inf
        self._first, self._tried = 0, 0
        self.state: MetaState | None = None

    def is_over(self, number: int, score: float, state: MetaState) -> bool:
        """Notes one more trajectory's result; whether patience has run out."""
        self._tried += 1
        if score > self._score:
            # a copy: the networks that are trained on are given away to the next update
            self._score, self._waited, self._first = score, 0, number
            self.state = jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), state)
        else:
            self._waited += 1
        return self._waited >= self._patience

    def words(self, planned: int) -> str:
        """Which networks were kept, and why training ended before its time, if it did."""
        early = f", stopped there: no better for {self._waited}" if self._tried < planned else ""
        score = f"a mean of {self._score:.1f} on the facts held out"
        return f"those of trajectory {self._first} are kept, with {score} ({self._tried} of {planned} made{early})"


def _trajectory(
    run: Prepared,
    learning: Learning,
    state: MetaState,
    plan: EditPlan,
    batches: range,
    number: int,
    log: Log,
    shown: Batchwise,
) -> MetaState:
    """One pass over the batches, from the unedited model."""
    deltas, waiting = no_edit(run.editor.sites), None
    past: collections.deque[tuple[Prompts, Prompts]] = collections.deque(maxlen=learning.back_depth)
    for j in batches:
        edit, equiv, unrel = (prompts_of(run, "train", plan, j, kind, shown.next_pass) for kind in KINDS)
        past.appendleft((equiv, unrel))
        lessons = [
            Lesson(*both, learning.time_decay**age) for age, both in enumerate(past)
        ]  # the newest first, as the published program adds them up
        shown.batch(run.config.dataset.n_edits, passes_of(run.editor.iters, learning, edit, lessons))
        former = state.stats
        deltas, state, aux = trajectory.train_batch(run.editor, learning, run.lm.params, deltas, state, edit, lessons)
        _emit(run, waiting, state, log)
        place = {"phase": "train", "trajectory": number, "batch": j}
        waiting = Waiting(place, training_row(run.editor, aux), former)
        del aux  # the shifts and gradients of a batch do not outlive it
        shown.end()
    _emit(run, waiting, state, log)
    if learning.update_every == "trajectory":
        state, norm = trajectory.finish(learning, state)
        check_update({"phase": "train", "trajectory": number}, norm, state)
    return state


def passes_of(iters: int, learning: Learning, edit: Prompts, lessons: list[Lesson]) -> int:
    """Passes over prompts that training on a batch takes."""
    taught = [one for lesson in lessons for one in (lesson.equiv, lesson.unrel if learning.loc_coef else None) if one]
    losses = iters if learning.a_loss_a_step else 1
    return iters * len(edit.batches) + losses * sum(len(one.batches) for one in taught)


def _emit(run: Prepared, waiting: Waiting | None, now: MetaState, log: Log) -> None:
    """Reads a batch's metrics and logs them; stops the run where they are not finite.

    The networks of `now` are still good then: the optimiser takes no step on a gradient that is not finite.
    """
    if waiting is None:
        return
    row = jax.device_get(waiting.row)
    good = MetaState(now.thetas, waiting.stats, now.opt_state, now.grads)
    check(run.editor, waiting.place, row, None, good)
    log(waiting.place | row)


def try_out(run: Prepared, state: MetaState, facts: ScorePlan, number: int) -> list[Shares]:
    """Scores of other facts, edited into the original model with the networks as they are; nothing is kept.

    Raises: Diverged.
    """
    deltas, now = no_edit(run.editor.sites), state
    for j in range(len(facts.plan)):
        prompts = prompts_of(run, "holdout", facts.plan, j, "edit")
        told = functools.partial(of_step, run.editor)
        deltas, now, steps = trajectory.edit_batch(run.editor, run.lm.params, deltas, now, prompts, told)
        place = {"phase": "holdout", "trajectory": number, "batch": j}
        check(run.editor, place, jax.device_get(step_row(steps)), None, state)
    return list(score_edits(run.under(deltas), facts, range(len(facts.plan)), "holdout"))


# ---------------------------------------------------------------------------------------------- editing


def edit(
    run: Prepared, state: MetaState, clock: PhaseClock, log: Log, after_batch: Callable[[int, Deltas], dict] | None
) -> tuple[Deltas, MetaState]:
    """Writes the facts, batch after batch, into the original model.

    `after_batch` scores each as soon as it is in and adds to its metrics. Without it nothing has to be known of a batch
    before the next one begins, so that its metrics are read while that one runs.

    Raises: Diverged, with the edits of the batches before.
    """
    deltas = no_edit(run.editor.sites)
    with track(len(run.valid_plan) * run.config.dataset.n_edits, "editing", "edits") as progress:
        shown = Batchwise(progress)
        batches = _written(run, state, clock, shown)
        for one in one_late(batches) if after_batch is None else batches:
            with clock.phase("edit"):
                row = jax.device_get(one.row)
            place = {"phase": "edit", "batch": one.j}
            check(run.editor, place, row, deltas if one.j else None, state)
            j, deltas, state = one.j, one.deltas, one.state
            del one  # edits are large: none are held beside those that the next batch may have to fall back on
            log(place | row | (after_batch(j, deltas) if after_batch is not None else {}))
            shown.end()
    run.prefixes.forget("edit")
    return deltas, state


def _written(run: Prepared, state: MetaState, clock: PhaseClock, shown: Batchwise) -> Iterator[Written]:
    """Edits batch after batch, without waiting for any."""
    deltas = no_edit(run.editor.sites)
    for j in range(len(run.valid_plan)):
        with clock.phase("edit"):
            prompts = prompts_of(run, "edit", run.valid_plan, j, "edit", shown.next_pass)
            shown.batch(run.config.dataset.n_edits, run.editor.iters * len(prompts.batches))
            told = functools.partial(of_step, run.editor)
            deltas, state, steps = trajectory.edit_batch(run.editor, run.lm.params, deltas, state, prompts, told)
        yield Written(j, step_row(steps), deltas, state)
