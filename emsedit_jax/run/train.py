"""The two loops over edit batches, learning to edit and editing; metrics are read while the next batch runs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax.edit.capture import prefix
from emsedit_jax.edit.step import StepAux, no_edit
from emsedit_jax.errors import InputError
from emsedit_jax.meta import trajectory
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.progress import track
from emsedit_jax.types import Deltas, MetaState, Sites

Log = Callable[[dict], None]


@functools.partial(jax.jit, static_argnums=0)
def shift_norms(sites: Sites, shift: Deltas) -> dict[str, jax.Array]:
    """Frobenius norm of each site's weight change."""
    return {
        name: jnp.linalg.norm(delta_skv[s])
        for group, delta_skv in zip(sites, shift, strict=True)
        for s, name in enumerate(group.names)
    }


def train(run: Prepared, state: MetaState, clock: PhaseClock, log: Log) -> MetaState:
    """Meta-training: one trajectory over the training batches, whose edits stay, then the optimiser's step.

    The trajectory's edits are dropped at the end: the language model is as it was.
    """
    if run.learning is None or run.train_plan is None:
        return state
    deltas, waiting = no_edit(run.editor.sites), None
    total = len(run.train_plan) * run.config.dataset.n_edits
    with clock.phase("train"), track(total, "training", "edits") as progress:
        for j, task in enumerate(run.train_plan):
            edit_prefix_btd, equiv_prefix_btd = (
                prefix(run.lm.config, run.editor.sites, run.lm.params, batch) for batch in (task.edit, task.equiv)
            )
            deltas, state, aux = trajectory.train_batch(
                run.editor, run.learning, run.lm.params, deltas, state, edit_prefix_btd, equiv_prefix_btd, task
            )
            row = _step_row(run, aux.steps) | {
                "equiv_loss": aux.loss.equiv,
                "drift": aux.loss.drift,
                "grad_norms": list(aux.norms),
            }
            _emit(waiting, log)
            waiting = ({"phase": "train", "batch": j}, row)
            progress.advance(run.config.dataset.n_edits)
        _emit(waiting, log)
        state = jax.block_until_ready(trajectory.finish(run.learning, state))
    return state


def edit(
    run: Prepared, state: MetaState, clock: PhaseClock, log: Log, after_batch: Callable[[int, Deltas], dict]
) -> tuple[Deltas, MetaState]:
    """Writes the facts, batch after batch, into the original model; `after_batch` may score and adds to the metrics."""
    deltas = no_edit(run.editor.sites)
    n_edits = run.config.dataset.n_edits
    with track(len(run.valid_plan) * n_edits, "editing", "edits") as progress:
        for j, task in enumerate(run.valid_plan):
            with clock.phase("edit"):
                prefix_btd = prefix(run.lm.config, run.editor.sites, run.lm.params, task.edit)
                deltas, state, auxes = trajectory.edit_batch(run.editor, run.lm.params, deltas, state, prefix_btd, task)
                row = jax.block_until_ready(_step_row(run, auxes))
            place = {"phase": "edit", "batch": j}
            _check(place, row)
            _emit((place, row | after_batch(j, deltas)), log)
            progress.advance(n_edits)
    return deltas, state


def _step_row(run: Prepared, auxes: tuple[StepAux, ...]) -> dict:
    return {
        "edit_loss": [aux.trace.loss for aux in auxes],
        "shift_norm": [shift_norms(run.editor.sites, aux.shift) for aux in auxes],
    }


def _emit(waiting: tuple[dict, dict] | None, log: Log) -> None:
    if waiting is not None:
        place, row = waiting
        row = jax.device_get(row)
        _check(place, row)
        log(place | row)


def _check(place: dict, row: dict) -> None:
    """Stops at numbers that are not finite, naming where they came up."""
    for path, value in jax.tree_util.tree_leaves_with_path(row):
        if not np.all(np.isfinite(value)):
            what = jax.tree_util.keystr(path)
            raise InputError(
                f"{place['phase']} batch {place['batch']}: {what} is {float(value)}, the edits have diverged; "
                "nothing was saved. Lower --config.editor.lr."
            )
