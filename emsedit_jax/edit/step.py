"""One edit, pure: (params, deltas, theta, stats, batch) -> (deltas', stats', what was seen on the way)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax.edit import normalizer
from emsedit_jax.edit.capture import capture
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.types import Batch, Deltas, Sites, Stats, Theta, Trace, pytree


@pytree
class StepAux:
    """What one edit step saw and did: enough to differentiate it again."""

    trace: Trace
    stats: Stats  # as used by the shift, this step's rows included
    shift: Deltas


def no_edit(sites: Sites) -> Deltas:
    """Deltas of zero: the unedited model."""
    return tuple(jnp.zeros((len(g.layers), g.k, g.v), jnp.float32) for g in sites)


def fresh_stats(sites: Sites) -> Stats:
    """Normalisers that have seen nothing."""
    return tuple(normalizer.init(g.k + g.v) for g in sites)


def shift_of(sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, trace: Trace) -> Deltas:
    """The weight change of every site, float32; no gradient flows into the trace or the statistics."""
    trace, stats = jax.lax.stop_gradient((trace, stats))
    with jax.default_matmul_precision("highest"):
        return tuple(
            rule(group, spec, theta[g], stats[g], trace.keys[g], trace.grads[g], trace.captured_n)
            for g, group in enumerate(sites)
        )


def seen(stats: Stats, trace: Trace) -> Stats:
    """The normalisers with the trace's rows in them."""
    return tuple(
        normalizer.update(one, jnp.concatenate([keys_snk, grads_snv], axis=-1), trace.captured_n)
        for one, keys_snk, grads_snv in zip(stats, trace.keys, trace.grads, strict=True)
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def learn_shift(
    sites: Sites, rule: ShiftRule, spec: NetSpec, deltas: Deltas, theta: Theta, stats: Stats, trace: Trace
) -> tuple[Deltas, Stats, Deltas]:
    """(deltas with the shift added, statistics with the rows added, the shift)."""
    stats = seen(stats, trace)
    shift = shift_of(sites, rule, spec, theta, stats, trace)
    return jax.tree.map(jnp.add, deltas, shift), stats, shift


def edit_step(
    config: LMConfig,
    sites: Sites,
    rule: ShiftRule,
    spec: NetSpec,
    params: Params,
    deltas: Deltas,
    theta: Theta,
    stats: Stats,
    prefix_btd: Float[Array, "b t d"],
    batch: Batch,
) -> tuple[Deltas, Stats, StepAux]:
    """Capture on the current weights, update the normaliser, shift, add (METHODS section 5).

    Two compiled programs rather than one: every step shares the capture, only the networks differ in shape.
    """
    trace = capture(config, sites, params, deltas, prefix_btd, batch)
    deltas, stats, shift = learn_shift(sites, rule, spec, deltas, theta, stats, trace)
    return deltas, stats, StepAux(trace, stats, shift)


def edit_steps(
    config: LMConfig,
    sites: Sites,
    rule: ShiftRule,
    specs: Sequence[NetSpec],
    params: Params,
    deltas: Deltas,
    thetas: Sequence[Theta],
    stats: Sequence[Stats],
    prefix_btd: Float[Array, "b t d"],
    batch: Batch,
) -> tuple[Deltas, tuple[Stats, ...], tuple[StepAux, ...]]:
    """All i steps over one batch: each captures on the weights that the former left."""
    new_stats, auxes = [], []
    for spec, theta, stats_i in zip(specs, thetas, stats, strict=True):
        deltas, stats_i, aux = edit_step(config, sites, rule, spec, params, deltas, theta, stats_i, prefix_btd, batch)
        new_stats.append(stats_i)
        auxes.append(aux)
    return deltas, tuple(new_stats), tuple(auxes)
