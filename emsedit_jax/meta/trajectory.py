"""Editing and meta-training, batch by batch: one loop for every editor (METHODS sections 5 and 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import hypernet
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.step import ROWS_AT_ONCE, StepAux, edit_step, fresh_stats
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.meta.gradient import (
    Lesson,
    MetaLoss,
    OptimiserSpec,
    accumulate,
    adam_step,
    optimiser,
    own_norms,
    pull_back,
    weight_gradient,
)
from emsedit_jax.meta.methods import Method
from emsedit_jax.types import BySite, Deltas, MetaState, Sites, Theta

UpdateEvery = Literal["step", "batch", "trajectory"]


class Editor(NamedTuple):
    """The static half of an editor at work: what is edited, by which method, with which networks, in how many steps."""

    config: LMConfig
    sites: Sites
    method: Method
    specs: tuple[NetSpec, ...]  # one a step, or one that all steps share
    iters: int
    rows_at_once: int = ROWS_AT_ONCE

    def slot(self, i: int) -> int:
        """Which network and normaliser step i uses."""
        return i if len(self.specs) > 1 else 0

    def structure(self, i: int) -> NetSpec:
        """What step i's programs are compiled for: trained etas are parameters, so their initial value is left out."""
        spec = self.specs[self.slot(i)]
        return spec._replace(lr=0.0) if self.method.learned else spec


class Learning(NamedTuple):
    """Settings of the meta-training."""

    optimiser: OptimiserSpec
    max_grad_norm: float
    keep_edits: bool  # along a trajectory they stay; step-wise training takes each step's back
    update_every: UpdateEvery
    running_clip: bool = True  # clip the sum whenever it grows, as the published program does; else at the update only
    drift_coef: float = 0.0
    loc_coef: float = 0.0
    time_decay: float = 1.0
    back_depth: int = 1  # batches that a loss looks back on, the current one included
    repeats: int = 1  # optimiser steps for each update: imitates a shared network listed once for every edit step

    @property
    def a_loss_a_step(self) -> bool:
        """Whether every edit step has a loss of its own; else one, after all steps, serves all."""
        return self.update_every == "step" or not self.keep_edits


class TrainAux(NamedTuple):
    """What one training batch saw: its steps, its losses with the weights' gradients, its updates.

    `norms` are those of the gradient sum before clipping, `moved` those of the networks after each update, which was
    not made where that is not finite.
    """

    steps: tuple[StepAux, ...]
    losses: tuple[MetaLoss, ...]  # one, or one a step
    weight_grads: tuple[BySite, ...]  # likewise
    own_norms: tuple[tuple[Float[Array, " _s"], ...], ...]  # [i] of each site's own parameters' gradient
    norms: tuple[Float[Array, ""], ...]  # [i]
    moved: tuple[Float[Array, ""], ...]  # none where the update comes later, else one, or one a step


def init(editor: Editor, seed: int, learning: Learning | None = None) -> MetaState:
    """Fresh networks and normalisers, drawn from a seed."""
    keys = jax.random.split(jax.random.key(seed), len(editor.specs))
    learned = editor.method.learned
    thetas: tuple[Theta, ...] = tuple(
        hypernet.init(editor.sites, spec, key) if learned else (None,) * len(editor.sites)
        for spec, key in zip(editor.specs, keys, strict=True)
    )
    stats = tuple(fresh_stats(editor.sites) for _ in editor.specs)
    opt_state = optimiser(learning.optimiser).init(thetas) if learning is not None else ()
    grads = jax.tree.map(jnp.zeros_like, thetas) if learning is not None else ()
    return sharding.put(MetaState(thetas, stats, opt_state, grads))


def step(
    editor: Editor,
    params: Params,
    deltas: Deltas,
    state: MetaState,
    prompts: Prompts,
    i: int,
    teach: bool = False,
    donate: bool = False,
    shifts: bool = False,
    factors: bool = False,
) -> tuple[Deltas, MetaState, StepAux]:
    """One edit step of a batch, with its own network and statistics; the rest as in `edit_step`."""
    slot = editor.slot(i)
    deltas, stats, aux = edit_step(
        editor.config,
        editor.sites,
        editor.method.rule,
        editor.structure(i),
        params,
        deltas,
        state.thetas[slot],
        state.stats[slot],
        prompts,
        editor.rows_at_once,
        teach,
        donate,
        shifts,
        factors,
    )
    all_stats = (*state.stats[:slot], stats, *state.stats[slot + 1 :])
    return deltas, MetaState(state.thetas, all_stats, state.opt_state, state.grads), aux


def edit_batch(
    editor: Editor,
    params: Params,
    deltas: Deltas,
    state: MetaState,
    prompts: Prompts,
    told: Callable[[StepAux], Any] = lambda aux: aux if aux.sums is None else aux.without_rows(),
    shifts: bool = False,
    factors: bool = False,
) -> tuple[Deltas, MetaState, tuple[Any, ...]]:
    """Writes one batch of facts: all edit steps, statistics carried on; the networks stay as they are.

    `told` says what is to be kept of each step: the rest, as large as the edits, does not outlive it. `shifts`: each
    step's weight change is wanted by itself; `factors`: in its factors.
    """
    kept = []
    for i in range(editor.iters):  # the caller's edits stay; those between the steps are written over
        wanted = {"shifts": shifts, "factors": factors}
        deltas, state, aux = step(editor, params, deltas, state, prompts, i, donate=i > 0, **wanted)
        kept.append(told(aux))
        del aux
    return deltas, state, tuple(kept)


def train_batch(
    editor: Editor,
    learning: Learning,
    params: Params,
    deltas: Deltas,
    state: MetaState,
    prompts: Prompts,
    lessons: Sequence[Lesson],
    shifts: bool = False,
) -> tuple[Deltas, MetaState, TrainAux]:
    """One batch of training: edit, take the loss, add to the gradients, and step where the settings say so.

    Edits that stay give one loss, at the weights after all steps, whose gradient serves every step's network. Edits
    that are taken back, or an update after every step, give a loss a step.

    Args:
      lessons: the current batch's, then those of former batches, newest first.
      shifts: each step's weight change is wanted by itself.

    The gradients of the `state` given are donated, and its networks where there is an update: do not use it again.
    """
    steps: list[StepAux] = []
    losses: list[MetaLoss] = []
    gradients: list[BySite] = []
    own: list[tuple[Array, ...]] = []
    norms: list[Array] = []
    moved: list[Array] = []
    looks_back = learning.loc_coef or not learning.keep_edits or editor.method.drift == "step"
    for i in range(editor.iters):
        before, donate = deltas, i > 0 and not looks_back
        deltas, state, aux = step(editor, params, deltas, state, prompts, i, teach=True, donate=donate, shifts=shifts)
        steps.append(aux)
        if learning.a_loss_a_step or i == editor.iters - 1:
            loss, gradient = weight_gradient(
                editor.config,
                editor.sites,
                params,
                before,
                deltas,
                lessons,
                loc_coef=learning.loc_coef,
                drift_coef=learning.drift_coef,
                origin=before if editor.method.drift == "step" else None,
            )
            losses.append(loss)
            gradients.append(gradient)
            for taught in (i,) if learning.a_loss_a_step else range(editor.iters):
                state, by_site, norm = _add(editor, learning, state, taught, steps[taught], gradient)
                own.append(by_site)
                norms.append(norm)
                aux = steps[taught] = _taught(steps[taught])  # no other name may hold a step's rows by now
        if learning.update_every == "step":
            state, norm = finish(learning, state)
            moved.append(norm)
        if not learning.keep_edits:
            deltas = before
    if learning.update_every == "batch":
        state, norm = finish(learning, state)
        moved.append(norm)
    return (
        deltas,
        state,
        TrainAux(tuple(steps), tuple(losses), tuple(gradients), tuple(own), tuple(norms), tuple(moved)),
    )


def _taught(aux: StepAux) -> StepAux:
    """The step without what only its derivative took."""
    return dataclasses.replace(aux, pull=None) if aux.sums is None else aux.without_rows()


def _add(
    editor: Editor, learning: Learning, state: MetaState, i: int, aux: StepAux, gradient: BySite
) -> tuple[MetaState, tuple[Array, ...], Array]:
    """The weights' gradient brought to step i's network and added to the sum.

    Returns (state, norms of the sites' own part of it, norm of the sum before clipping).
    """
    slot = editor.slot(i)
    theta_grad = pull_back(editor.sites, editor.method.rule, editor.structure(i), state.thetas[slot], aux, gradient)
    bound = learning.max_grad_norm if learning.running_clip else jnp.inf
    grads, norm = accumulate(state.grads, slot, theta_grad, bound)
    return MetaState(state.thetas, state.stats, state.opt_state, grads), own_norms(theta_grad), norm


def finish(learning: Learning, state: MetaState) -> tuple[MetaState, Array]:
    """The optimiser's step on the accumulated gradient, which starts anew; the networks' norm after it.

    The norm is not finite where a step could not be taken (see `adam_step`). The networks and moments of the `state`
    given are donated: do not use that state again.
    """
    thetas, opt_state, worst = state.thetas, state.opt_state, jnp.zeros(())
    for _ in range(learning.repeats):
        thetas, opt_state, norm = adam_step(learning.optimiser, thetas, opt_state, state.grads)
        worst = jnp.maximum(worst, norm)  # keeps a NaN
    return MetaState(thetas, state.stats, opt_state, jax.tree.map(jnp.zeros_like, state.grads)), worst
