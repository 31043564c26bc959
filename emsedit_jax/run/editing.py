"""Editing: the loop over edit batches; metrics are read late, while the next batch runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from emsedit_jax import sharding
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.factors import Factors
from emsedit_jax.edit.step import StepAux, no_edit
from emsedit_jax.measure.late import one_late
from emsedit_jax.meta import trajectory
from emsedit_jax.run import checkpoint
from emsedit_jax.run.bookkeeping import Bookkeeper, lacks
from emsedit_jax.run.checkpoint import Saved
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.ledger_lines import NO_LEDGER, Mark
from emsedit_jax.run.prepare import Prepared, say
from emsedit_jax.run.progress import Batchwise, track
from emsedit_jax.run.watch import check, of_step, step_row
from emsedit_jax.types import Deltas, MetaState

Log = Callable[[dict], None]


class Written(NamedTuple):
    """An edit batch whose metrics, like all the rest, are still being computed."""

    j: int
    row: dict
    deltas: Deltas
    state: MetaState
    steps: Sequence[Sequence[Factors]]  # of the weight change; nothing where no ledger is kept


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


class Edits(NamedTuple):
    """Where editing is: so many batches are in."""

    done: int
    deltas: Deltas
    state: MetaState


def edit(
    run: Prepared,
    state: MetaState,
    clock: PhaseClock,
    log: Log,
    after_batch: Callable[[int, Deltas], dict] | None,
    keeper: Keeper,
    more: Callable[[], dict[str, Any]],
    books: Bookkeeper | None = None,
) -> Edits:
    """Writes the facts, batch after batch, into the original model.

    `after_batch` scores each as soon as it is in and adds to its metrics. Without it nothing has to be known of a batch
    before the next one begins, so that its metrics are read while that one runs. `more`: what else is to be kept of
    the batches so far. `books`: the ledger to be written.

    Raises: Diverged, with the edits of the batches before; Preempted.
    """
    now, size = Edits(0, no_edit(run.editor.sites), state), run.config.dataset.n_edits
    if keeper.found is not None:
        now = _edits_found(run, keeper.found, state)
    if books is not None:
        books.begin(now.done)
    with track(len(run.valid_plan) * size, "editing", "edits") as progress:
        shown = Batchwise(progress)
        progress.advance(now.done * size)
        batches = _written(run, now, clock, shown, books is not None)
        for one in one_late(batches) if after_batch is None else batches:
            with clock.phase("edit"):
                row = jax.device_get(one.row)
            place = {"phase": "edit", "batch": one.j}
            check(run.editor, place, row, now.deltas if one.j else None, now.state)
            j, now, steps = one.j, Edits(one.j + 1, one.deltas, one.state), one.steps
            del one  # edits are large: none are held beside those that the next batch may have to fall back on
            found = after_batch(j, now.deltas) if after_batch is not None else {}
            log(place | row | found)
            shown.end()
            if books is not None:
                scores = {name: value for name, value in found.items() if isinstance(value, float)}
                books.note(now.done, run.valid_plan.records(j), steps, scores, now.deltas)
            if now.done < len(run.valid_plan) and keeper.is_due():
                there = books.mark() if books is not None else NO_LEDGER
                arrays = checkpoint.flat(deltas=now.deltas, stats=now.state.stats)
                keeper.save(arrays, {"done": now.done, "ledger": there._asdict(), **more()})
                if books is not None:
                    books.saved(now.done)
    run.prefixes.forget("edit")
    return now


def lost_ledger(path: Path, place: Mapping[str, Any]) -> str:
    """Why editing cannot go on from a place that was saved: the ledger is not there up to it; "" where it can."""
    if "ledger" not in place:
        return "it is of an earlier version of this program"
    there = Mark.read(place["ledger"])
    return "" if there == NO_LEDGER else lacks(path, there)


def _edits_found(run: Prepared, saved: Saved, state: MetaState) -> Edits:
    """The edits and statistics of a run before this one; the networks are those given."""
    specs, done = tuple(map(sharding.spec_of_edit, run.editor.sites)), saved.place["done"]
    deltas = checkpoint.filled("deltas", no_edit(run.editor.sites), saved.arrays, specs)
    stats = checkpoint.filled("stats", state.stats, saved.arrays)
    say("resumed", f"editing: {done} of {len(run.valid_plan)} batches done")
    return Edits(done, deltas, MetaState(state.thetas, stats, state.opt_state, state.grads))


def _written(run: Prepared, now: Edits, clock: PhaseClock, shown: Batchwise, factors: bool) -> Iterator[Written]:
    """Edits batch after batch, without waiting for any; `factors`: also gives the weight changes by themselves."""
    deltas, state = now.deltas, now.state

    def told(aux: StepAux) -> tuple[Any, Any]:
        return of_step(run.editor, aux), aux.factors

    for j in range(now.done, len(run.valid_plan)):
        with clock.phase("edit"):
            prompts = prompts_of(run, "edit", run.valid_plan, j, "edit", shown.next_pass)
            shown.batch(run.config.dataset.n_edits, run.editor.iters * len(prompts.batches))
            given = run.editor, run.lm.params, deltas, state, prompts, told
            deltas, state, steps = trajectory.edit_batch(*given, factors=factors)
            rows, parts = zip(*steps, strict=True)
        yield Written(j, step_row(rows), deltas, state, parts if factors else ())
