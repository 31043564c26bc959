"""The meta-gradient: dL/dW from the model, pulled back through each step's shift (METHODS section 6)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from emsedit_jax.edit.capture import cross_entropy
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule
from emsedit_jax.edit.step import StepAux, shift_of
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.types import Batch, Deltas, Sites, Theta, pytree


@pytree
class MetaLoss:
    """The parts of a meta-loss, in nats; `drift` is ||W - W0||^2 before its coefficient."""

    equiv: Float[Array, ""]
    equiv_ce_a: Float[Array, " a"]
    drift: Float[Array, ""]


@functools.partial(jax.jit, static_argnums=(0, 1))
def weight_gradient(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas,
    prefix_btd: Float[Array, "b t d"],
    equiv: Batch,
    drift_coef: Float[Array, ""] | float,
) -> tuple[MetaLoss, Deltas]:
    """`CE(equiv) + drift_coef ||deltas||^2` at the edited weights, and its gradient with respect to each site's weight.

    Deltas count from the weights at the start of training, so they are the drift themselves.
    """

    def loss_of(deltas: Deltas):
        x_btd, _ = decoder.suffix(config, sites, params, deltas, prefix_btd, equiv.positions_bt, equiv.segments_bt)
        ce, ce_a = cross_entropy(config, params, x_btd, equiv)
        drift = sum((jnp.sum(jnp.square(delta_skv)) for delta_skv in deltas), jnp.zeros(()))
        return ce + drift_coef * drift, MetaLoss(ce, ce_a, drift)

    gradient, parts = jax.grad(loss_of, has_aux=True)(deltas)
    return parts, gradient


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def pull_back(sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, aux: StepAux, gradient: Deltas) -> Theta:
    """The gradient of one step's network: the vjp of its shift with the weights' gradient as cotangent."""
    _, pull = jax.vjp(lambda theta: shift_of(sites, rule, spec, theta, aux.stats, aux.trace), theta)
    return pull(gradient)[0]


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def accumulate(
    total: tuple[Theta, ...], i: int, theta_grad: Theta, max_grad_norm: Float[Array, ""] | float
) -> tuple[tuple[Theta, ...], Float[Array, ""]]:
    """Adds network i's gradient to the running sum and clips the sum over all networks.

    Returns (clipped sum, its norm before clipping). The sum is clipped after every network of every batch, on top of
    what was clipped before, as the published program does.
    """
    total = (*total[:i], jax.tree.map(jnp.add, total[i], theta_grad), *total[i + 1 :])
    norm = optax.tree.norm(total)
    factor = jnp.minimum(1.0, max_grad_norm / (norm + 1e-6))
    return jax.tree.map(lambda x: x * factor, total), norm


def optimiser(meta_lr: float) -> optax.GradientTransformation:
    """Adam with the published program's settings."""
    return optax.adam(meta_lr, b1=0.9, b2=0.999, eps=1e-8)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def adam_step(
    meta_lr: float, thetas: tuple[Theta, ...], opt_state: optax.OptState, grads: tuple[Theta, ...]
) -> tuple[tuple[Theta, ...], optax.OptState]:
    """One step of the optimiser over all networks."""
    updates, opt_state = optimiser(meta_lr).update(grads, opt_state)
    return jax.tree.map(jnp.add, thetas, updates), opt_state
