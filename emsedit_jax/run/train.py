"""Learning to edit: the loop over training batches; metrics are read late, while the next batch runs."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.data.batching import KINDS
from emsedit_jax.data.scoring import ScorePlan
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure.score import Shares, means, score_edits
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.meta.trajectory import Learning
from emsedit_jax.run import checkpoint
from emsedit_jax.run.checkpoint import Saved
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.editing import Log, prompts_of
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.prepare import Prepared, say
from emsedit_jax.run.progress import Batchwise, track
from emsedit_jax.run.watch import Diverged, check, check_update, of_step, step_row, training_row
from emsedit_jax.types import Deltas, MetaState, Stats


class Waiting(NamedTuple):
    """A training batch's metrics that are still being computed, and the statistics before it."""

    place: dict
    row: dict
    stats: tuple[Stats, ...]


def train(run: Prepared, state: MetaState, clock: PhaseClock, log: Log, keeper: Keeper) -> tuple[MetaState, int]:
    """Meta-training: trajectories over the training batches, each on the original model.

    With facts held out, each trajectory's networks are tried on them, training stops when they get no better, and the
    best ones are returned. Returns (networks and all, how many facts they were trained on).

    Raises: Diverged, with the best networks where facts are held out, else the last good ones; Preempted.
    """
    if run.learning is None or run.train_plan is None:
        return state, 0
    config = run.config
    passes = config.editor.n_epochs * config.train.n_trajectories
    size = len(run.train_plan) // config.train.n_trajectories
    at = Place(0, 0, no_edit(run.editor.sites))
    best = Best(config.train.patience)
    if keeper.found is not None:
        at, state, best = _found(run, keeper.found, state, best)
    total = passes * size * config.dataset.n_edits
    with clock.phase("train"), track(total, "training", "edits") as progress:
        shown = Batchwise(progress)
        progress.advance((at.number * size + at.done) * config.dataset.n_edits)
        try:
            while at.number < passes and not best.is_over():
                first = at.number % config.train.n_trajectories * size
                state = _trajectory(run, run.learning, state, range(first, first + size), at, best, log, shown, keeper)
                if run.holdout is not None:
                    found = means(try_out(run, state, run.holdout, at.number))
                    log({"phase": "holdout", "trajectory": at.number} | found)
                    best.note(at.number, sum(found.values()) / len(found), state)
                at = Place(at.number + 1, 0, no_edit(run.editor.sites))
                if keeper.is_due():
                    _save(keeper, at, state, best)
        except Diverged as stop:
            raise Diverged(str(stop), None, best.state or stop.state) from None
        state = jax.block_until_ready(best.state or state)
        run.prefixes.forget("train", "holdout")
    if run.holdout is not None:
        say("networks", best.words(passes))
    return state, at.number * size * config.dataset.n_edits


class Place(NamedTuple):
    """Where training is: so many batches of this trajectory are done, which left these edits."""

    number: int
    done: int
    deltas: Deltas


def _save(keeper: Keeper, at: Place, state: MetaState, best: Best) -> None:
    """Everything that the rest of the training depends on."""
    trees: dict[str, Any] = {"state": state, "deltas": at.deltas if at.done else ()}
    trees["best"] = best.state if best.state is not None else ()
    keeper.save(checkpoint.flat(**trees), {"number": at.number, "done": at.done, "best": best.plain()})


def _found(run: Prepared, saved: Saved, state: MetaState, best: Best) -> tuple[Place, MetaState, Best]:
    """What `_save` saved; the state and the best given are those of the beginning."""
    place, deltas = saved.place, no_edit(run.editor.sites)
    if place["done"]:
        specs = tuple(map(sharding.spec_of_edit, run.editor.sites))
        deltas = checkpoint.filled("deltas", deltas, saved.arrays, specs)
    best.restore(place["best"])
    if any(name.startswith("best.") for name in saved.arrays):
        best.state = checkpoint.filled("best", state, saved.arrays)
    state = checkpoint.filled("state", state, saved.arrays)
    say("resumed", f"training: trajectory {place['number']}, {place['done']} of its batches done")
    return Place(place["number"], place["done"], deltas), state, best


class Best:
    """The best networks so far, and for how long there were no better ones."""

    def __init__(self, patience: int):
        self._patience, self._waited, self._score = patience, 0, -np.inf
        self._first, self._tried = 0, 0
        self.state: MetaState | None = None

    def note(self, number: int, score: float, state: MetaState) -> None:
        """One more trajectory's result."""
        self._tried += 1
        if score > self._score:
            # a copy: the networks that are trained on are given away to the next update
            self._score, self._waited, self._first = score, 0, number
            self.state = jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), state)
        else:
            self._waited += 1

    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self._waited >= self._patience

    def plain(self) -> dict[str, Any]:
        """All but the networks, as JSON holds it."""
        found = {"waited": self._waited, "first": self._first, "tried": self._tried}
        return found | ({"score": self._score} if self._tried else {})

    def restore(self, plain: Mapping[str, Any]) -> None:
        """The way back."""
        self._waited, self._first, self._tried = (int(plain[name]) for name in ("waited", "first", "tried"))
        self._score = plain.get("score", -np.inf)

    def words(self, planned: int) -> str:
        """Which networks were kept, and why training ended before its time, if it did."""
        early = f", stopped there: no better for {self._waited}" if self._tried < planned else ""
        score = f"a mean of {self._score:.1f} on the facts held out"
        return f"those of trajectory {self._first} are kept, with {score} ({self._tried} of {planned} made{early})"


def _trajectory(
    run: Prepared,
    learning: Learning,
    state: MetaState,
    batches: range,
    at: Place,
    best: Best,
    log: Log,
    shown: Batchwise,
    keeper: Keeper,
) -> MetaState:
    """One pass over the batches, from where it was left: at the beginning, from the unedited model."""
    deltas, waiting = at.deltas, None

    def kinds(j: int) -> Iterator[Prompts]:
        assert run.train_plan is not None
        return (prompts_of(run, "train", run.train_plan, j, kind, shown.next_pass) for kind in KINDS)

    past: collections.deque[tuple[Prompts, Prompts]] = collections.deque(maxlen=learning.back_depth)
    for j in batches[max(at.done - learning.back_depth, 0) : at.done]:
        _, *both = kinds(j)
        past.appendleft((both[0], both[1]))
    for j in batches[at.done :]:
        edit, equiv, unrel = kinds(j)
        past.appendleft((equiv, unrel))
        lessons = [
            Lesson(*both, learning.time_decay**age) for age, both in enumerate(past)
        ]  # the newest first, as the published program adds them up
        shown.batch(run.config.dataset.n_edits, passes_of(run.editor.iters, learning, edit, lessons))
        former = state.stats
        deltas, state, aux = trajectory.train_batch(run.editor, learning, run.lm.params, deltas, state, edit, lessons)
        _emit(run, waiting, state, log)
        place = {"phase": "train", "trajectory": at.number, "batch": j}
        waiting = Waiting(place, training_row(run.editor, aux), former)
        del aux  # the shifts and gradients of a batch do not outlive it
        shown.end()
        done = j + 1 - batches.start
        if done < len(batches) and keeper.is_due():
            _emit(run, waiting, state, log)
            waiting = None
            _save(keeper, Place(at.number, done, deltas), state, best)
    _emit(run, waiting, state, log)
    if learning.update_every == "trajectory":
        state, norm = trajectory.finish(learning, state)
        check_update({"phase": "train", "trajectory": at.number}, norm, state)
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
