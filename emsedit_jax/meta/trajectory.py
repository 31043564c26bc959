"""Meta-training along a trajectory of edit batches whose edits stay (METHODS section 6, EMSEdit sequential)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax.edit import hypernet
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.step import StepAux, edit_steps, fresh_stats
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.meta.gradient import MetaLoss, accumulate, adam_step, optimiser, pull_back, weight_gradient
from emsedit_jax.meta.methods import Method
from emsedit_jax.types import Deltas, EditTask, MetaState, Sites, Theta


class Editor(NamedTuple):
    """The static half of an editor at work: what is edited, by which method, with which networks."""

    config: LMConfig
    sites: Sites
    method: Method
    specs: tuple[NetSpec, ...]  # [i]


class Learning(NamedTuple):
    """Settings of the meta-training."""

    meta_lr: float
    max_grad_norm: float
    reg_coef: float


class TrainAux(NamedTuple):
    """What one training batch saw: its steps, its loss, the weights' gradient and the clippings' norms before them."""

    steps: tuple[StepAux, ...]
    loss: MetaLoss
    weight_grads: Deltas
    norms: tuple[Float[Array, ""], ...]  # [i]


def init(editor: Editor, seed: int) -> MetaState:
    """Fresh networks and normalisers, one of each a step, drawn from a seed."""
    keys = jax.random.split(jax.random.key(seed), len(editor.specs))
    learned = editor.method.learned
    thetas: tuple[Theta, ...] = tuple(
        hypernet.init(editor.sites, spec, key) if learned else (None,) * len(editor.sites)
        for spec, key in zip(editor.specs, keys, strict=True)
    )
    stats = tuple(fresh_stats(editor.sites) for _ in editor.specs)
    return MetaState(thetas, stats, optimiser(0.0).init(thetas), jax.tree.map(jnp.zeros_like, thetas))


def edit_batch(
    editor: Editor, params: Params, deltas: Deltas, state: MetaState, prefix_btd: Float[Array, "b t d"], task: EditTask
) -> tuple[Deltas, MetaState, tuple[StepAux, ...]]:
    """Writes one batch of facts: all edit steps, statistics carried on; the networks stay as they are."""
    deltas, stats, auxes = edit_steps(
        editor.config,
        editor.sites,
        editor.method.rule,
        editor.specs,
        params,
        deltas,
        state.thetas,
        state.stats,
        prefix_btd,
        task.edit,
    )
    return deltas, MetaState(state.thetas, stats, state.opt_state, state.grads), auxes


def train_batch(
    editor: Editor,
    learning: Learning,
    params: Params,
    deltas: Deltas,
    state: MetaState,
    edit_prefix_btd: Float[Array, "_b _t d"],
    equiv_prefix_btd: Float[Array, "_b _t d"],
    task: EditTask,
) -> tuple[Deltas, MetaState, TrainAux]:
    """One batch of the trajectory: edit, take one loss at the weights after all steps, and add to the gradients.

    The loss's weight gradient serves every step's network; the running sum is clipped after each. No optimiser step.
    The gradients of the `state` given are donated: do not use that state again.
    """
    deltas, state, auxes = edit_batch(editor, params, deltas, state, edit_prefix_btd, task)
    drift_coef = learning.reg_coef**editor.method.drift_power
    loss, gradient = weight_gradient(
        editor.config, editor.sites, params, deltas, equiv_prefix_btd, task.equiv, drift_coef
    )
    grads, norms = state.grads, []
    for i, (spec, aux) in enumerate(zip(editor.specs, auxes, strict=True)):
        theta_grad = pull_back(editor.sites, editor.method.rule, spec, state.thetas[i], aux, gradient)
        grads, norm = accumulate(grads, i, theta_grad, learning.max_grad_norm)
        norms.append(norm)
    state = MetaState(state.thetas, state.stats, state.opt_state, grads)
    return deltas, state, TrainAux(auxes, loss, gradient, tuple(norms))


def finish(learning: Learning, state: MetaState) -> MetaState:
    """The optimiser's one step at the end of a trajectory; the accumulated gradient starts anew.

    The networks and moments of the `state` given are donated: do not use that state again.
    """
    thetas, opt_state = adam_step(learning.meta_lr, state.thetas, state.opt_state, state.grads)
    return MetaState(thetas, state.stats, opt_state, jax.tree.map(jnp.zeros_like, state.grads))
