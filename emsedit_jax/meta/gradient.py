"""The meta-gradient: dL/dW from the model, pulled back through each step's shift (METHODS section 6)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit.capture import Prompts, cross_entropy
from emsedit_jax.edit.factors import cotangent
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule
from emsedit_jax.edit.step import Pull, StepAux, shift_of
from emsedit_jax.edit.stream import pull_back_sums
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.types import Batch, BySite, Deltas, SiteGroup, Sites, Stats, Theta, Trace, pytree

Scalar = Float[Array, ""] | float
LOSS = (sharding.WHOLE, sharding.WHOLE, sharding.ROWS)  # of a pass in parts: loss, gradient, each row's own
OF_A_SITE = ("scale", "shift", "lr", "lamda")  # parameters of a network with a row a site


class Lesson(NamedTuple):
    """What one edit batch is to teach: the same facts asked otherwise, and facts that must not move."""

    equiv: Prompts
    unrel: Prompts | None  # None: locality is not asked for
    weight: float  # of both


@pytree
class MetaLoss:
    """The parts of a meta-loss, in nats; `drift` is a squared distance, before its coefficient.

    Per pass, in the order taken: each answer row's own cross-entropy and divergence, unweighted.
    """

    equiv: Float[Array, ""]  # weighted sum over lessons
    locality: Float[Array, ""]  # likewise, before loc_coef
    drift: Float[Array, ""]
    equiv_ce: tuple[Float[Array, " _a"], ...]
    locality_kl: tuple[Float[Array, " _a"], ...]


def weight_gradient(
    config: LMConfig,
    sites: Sites,
    params: Params,
    before: Deltas,
    deltas: Deltas,
    lessons: Sequence[Lesson],
    *,
    loc_coef: float = 0.0,
    drift_coef: float = 0.0,
    origin: Deltas | None = None,
) -> tuple[MetaLoss, BySite]:
    """The meta-loss at the edited weights, and its gradient with respect to each site's weight.

    `sum_j weight_j (CE(equiv_j) + loc_coef KL(unrel_j before || after)) + drift_coef |deltas - origin|^2`

    Args:
      before: the edits in force before the shift; the divergence's reference.
      deltas: the edits after it, where the gradient is taken.
      lessons: in the order their losses are added up.
      origin: where drift counts from; None for the unedited weights.
    """
    drift, total = _drift_gradient(deltas, origin, drift_coef)
    equiv = locality = jnp.zeros(())
    equiv_ce, locality_kl = [], []
    for lesson in lessons:
        for prefix_md, batch in lesson.equiv.passes():
            loss, ce_a, total = add_equiv(config, sites, params, deltas, prefix_md, batch, lesson.weight, total)
            equiv += loss
            equiv_ce.append(ce_a)
    for lesson in lessons if loc_coef else ():
        for prefix_md, batch in lesson.unrel.passes() if lesson.unrel is not None else ():
            weight = lesson.weight * loc_coef
            loss, kl_a, total = add_locality(config, sites, params, before, deltas, prefix_md, batch, weight, total)
            locality += loss / loc_coef
            locality_kl.append(kl_a)
    return MetaLoss(equiv, locality, drift, tuple(equiv_ce), tuple(locality_kl)), total


@jax.jit
def _drift_gradient(deltas: Deltas, origin: Deltas | None, coef: Scalar) -> tuple[Array, BySite]:
    moved = deltas if origin is None else jax.tree.map(jnp.subtract, deltas, origin)
    drift = sum((jnp.sum(jnp.square(one_skv)) for one_skv in moved), jnp.zeros(()))
    return drift, jax.tree.map(lambda one_kv: 2 * coef * one_kv, by_site(moved))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=7)
def add_equiv(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
    weight: Scalar,
    total: BySite,
) -> tuple[Array, Array, BySite]:
    """(weighted cross-entropy, each row's own, gradient with this pass's in it)."""

    def of_part(params: Params, deltas: Deltas, weight: Array, prefix_md: Array, batch: Batch):
        def loss_of(deltas: BySite):
            x_ad, _ = decoder.answer_states(config, sites, params, deltas, prefix_md, batch)
            loss, ce_a = cross_entropy(decoder.logits_Va(config, params, x_ad), batch)
            return weight * loss, ce_a

        (loss, ce_a), gradient = jax.value_and_grad(loss_of, has_aux=True)(by_site(deltas))
        return *sharding.total((loss, gradient)), ce_a

    given = (params, deltas, jnp.asarray(weight)), (prefix_md, batch)
    loss, gradient, ce_a = sharding.over_data(of_part, *given, LOSS, batch.parts)
    return loss, ce_a, _added(sites, total, gradient)


def by_site(deltas: Deltas) -> BySite:
    """Every site apart: a gradient is then added up in place, and none waits for those of all sites."""
    return tuple(tuple(delta_skv) for delta_skv in deltas)


def stacked(gradient: BySite) -> Deltas:
    """`by_site` undone."""
    return tuple(map(jnp.stack, gradient))


_stack = jax.jit(stacked)


def _added(sites: Sites, total: BySite, gradient: BySite) -> BySite:
    both = zip(sites, total, gradient, strict=True)
    return tuple(tuple(map(functools.partial(_site_added, group), *sums)) for group, *sums in both)


def _site_added(group: SiteGroup, total_kv: Array, gradient_kv: Array) -> Array:
    return sharding.lay(total_kv + gradient_kv, *sharding.of_edit(group))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=8)
def add_locality(
    config: LMConfig,
    sites: Sites,
    params: Params,
    before: Deltas,
    deltas: Deltas,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
    weight: Scalar,
    total: BySite,
) -> tuple[Array, Array, BySite]:
    """(weighted KL(before || after) over answer rows, each row's own, gradient with this pass's in it)."""

    def of_part(params: Params, before: Deltas, deltas: Deltas, weight: Array, prefix_md: Array, batch: Batch):
        def log_probs(deltas: Deltas | BySite) -> Array:
            x_ad, _ = decoder.answer_states(config, sites, params, deltas, prefix_md, batch)
            return jax.nn.log_softmax(decoder.logits_Va(config, params, x_ad), axis=0)

        reference_Va = jax.lax.stop_gradient(log_probs(before))

        def loss_of(deltas: BySite):
            kl_a = jnp.sum(jnp.exp(reference_Va) * (reference_Va - log_probs(deltas)), axis=0)
            kl_a = jnp.where(batch.labels_a >= 0, kl_a, 0.0)
            return weight * jnp.sum(kl_a * batch.weights_a), kl_a

        (loss, kl_a), gradient = jax.value_and_grad(loss_of, has_aux=True)(by_site(deltas))
        return *sharding.total((loss, gradient)), kl_a

    given = (params, before, deltas, jnp.asarray(weight)), (prefix_md, batch)
    loss, gradient, kl_a = sharding.over_data(of_part, *given, LOSS, batch.parts)
    return loss, kl_a, _added(sites, total, gradient)


def pull_back(sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, aux: StepAux, gradient: BySite) -> Theta:
    """The gradient of one step's network: the vjp of its shift with the weights' gradient as cotangent."""
    if aux.pull is not None:
        return pull(aux.pull, gradient)
    if aux.sums is None:
        return _pull_back(sites, rule, spec, theta, aux.stats, aux.traces[0], gradient)
    assert aux.shift is not None
    return pull_back_sums(sites, rule, spec, theta, aux.stats, aux.traces, aux.sums, aux.shift, _stack(gradient))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pull_back(
    sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, trace: Trace, gradient: BySite
) -> Theta:
    _, pull = jax.vjp(lambda theta: shift_of(sites, rule, spec, theta, stats, trace)[0], theta)
    return pull(stacked(gradient))[0]


@jax.jit
def pull(left: Pull, gradient: BySite) -> Theta:
    """`pull_back` by what the shift left."""
    return left.vjp(cotangent(left.factors, gradient))[0]


def own_norms(theta_grad: Theta) -> tuple[Float[Array, " _s"], ...]:
    """Per group: norm of the gradient of each site's own parameters (scales, shifts, learning rate, log ridge)."""
    own = [
        [one for path, one in jax.tree_util.tree_leaves_with_path(group) if _key(path) in OF_A_SITE]
        for group in theta_grad
    ]
    return _row_norms(own)  # networks of different ranks have the same shapes here: one program for all


@jax.jit
def _row_norms(tables: list[list[Array]]) -> tuple[Array, ...]:
    return tuple(jnp.sqrt(sum(jnp.sum(jnp.square(one), axis=1) for one in group)) for group in tables)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def accumulate(
    total: tuple[Theta, ...], i: int, theta_grad: Theta, max_grad_norm: Scalar
) -> tuple[tuple[Theta, ...], Float[Array, ""]]:
    """Adds network i's gradient to the running sum and clips the sum over all networks.

    Returns (clipped sum, its norm before clipping). The sum is clipped after every network of every batch, on top of
    what was clipped before, as the published program does; `max_grad_norm=inf` only adds.
    """
    total = (*total[:i], jax.tree.map(jnp.add, total[i], theta_grad), *total[i + 1 :])
    norm = optax.tree.norm(total)
    factor = jnp.minimum(1.0, max_grad_norm / (norm + 1e-6))
    return sharding.lay_whole(jax.tree.map(lambda x: x * factor, total)), norm


class OptimiserSpec(NamedTuple):
    """Adam's settings; static. The defaults are the published program's."""

    meta_lr: float
    schedule: str = "constant"  # constant, linear (to 0) or cosine (to 0)
    warmup: int = 0  # steps from 0 up to meta_lr
    steps: int = 1  # of the whole training; what linear and cosine end at
    weight_decay: float = 0.0  # decoupled, of the matrices A and B alone
    clip: float = float("inf")  # gradient norm, at the step itself

    def rate(self) -> optax.Schedule:
        """Learning rate by step."""
        left = max(self.steps - self.warmup, 1)
        after = {
            "constant": lambda: optax.constant_schedule(self.meta_lr),
            "linear": lambda: optax.linear_schedule(self.meta_lr, 0.0, left),
            "cosine": lambda: optax.cosine_decay_schedule(self.meta_lr, left),
        }[self.schedule]()
        if not self.warmup:
            return after
        rise = optax.linear_schedule(self.meta_lr / (self.warmup + 1), self.meta_lr, self.warmup)
        return optax.join_schedules([rise, after], [self.warmup])


def _key(path: tuple) -> Any:
    return getattr(path[-1], "key", None)


def _matrices(theta: Any) -> Any:
    """True at A and B: etas, scales and shifts are not to be drawn towards zero."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _key(path) in ("A", "B"), theta)


def optimiser(spec: OptimiserSpec) -> optax.GradientTransformation:
    """Adam with betas 0.9 and 0.999 and eps 1e-8, with what the spec adds."""
    constant = spec.schedule == "constant" and not spec.warmup
    rate = spec.meta_lr if constant else spec.rate()
    adam = optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=spec.weight_decay, mask=_matrices)
    plain = optax.adam(rate, b1=0.9, b2=0.999, eps=1e-8)
    step = adam if spec.weight_decay else plain
    return step if spec.clip == float("inf") else optax.chain(optax.clip_by_global_norm(spec.clip), step)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def adam_step(
    spec: OptimiserSpec, thetas: tuple[Theta, ...], opt_state: optax.OptState, grads: tuple[Theta, ...]
) -> tuple[tuple[Theta, ...], optax.OptState, Float[Array, ""]]:
    """One step of the optimiser over all networks.

    Returns (networks, moments, norm over all networks after the step). A step that would leave a norm, of networks or
    gradient, that is not finite is not taken: the norm returned says so, the networks and moments are the old ones.
    """
    updates, stepped = optimiser(spec).update(grads, opt_state, thetas)
    moved = jax.tree.map(jnp.add, thetas, updates)
    norm = jnp.where(jnp.isfinite(optax.tree.norm(grads)), optax.tree.norm(moved), jnp.nan)
    sound = jnp.isfinite(norm)
    kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), (moved, stepped), (thetas, opt_state))
    return *sharding.lay_whole(kept), norm
