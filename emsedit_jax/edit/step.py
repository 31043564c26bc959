"""One edit, pure: (params, deltas, theta, stats, prompts) -> (deltas', stats', what was seen on the way)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import normalizer, solve, stream
from emsedit_jax.edit.capture import Prompts, capture
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule, over_devices, rows_of
from emsedit_jax.edit.stream import Sums
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Deltas, SiteGroup, Sites, Stats, Theta, Trace, pytree

ROWS_AT_ONCE = 4096  # captured token rows that the device holds together; more are streamed


@pytree
class StepAux:
    """What one edit step saw and did: enough to differentiate it again."""

    traces: tuple[Trace, ...]  # one, or what was streamed, in chunks without padding (on the host)
    loss: Float[AnyArray, ""]  # nats, micro-batch means summed
    stats: Stats  # as used by the shift, this step's rows included
    shift: Deltas
    error: tuple[Float[Array, " _s"], ...]  # of the ridge solve (`solve.Solved`), per group
    sums: Sums | None = None  # of a streamed shift
    pull: Any = None  # the shift's vjp in the network, with what it kept on the way; None where it was not asked for

    def without_rows(self) -> StepAux:
        """For those who will not differentiate it."""
        return StepAux((), self.loss, self.stats, self.shift, self.error)


def no_edit(sites: Sites) -> Deltas:
    """Deltas of zero: the unedited model."""
    if sharding.alone():
        return tuple(jnp.zeros((len(g.layers), g.k, g.v), jnp.float32) for g in sites)
    return _laid_zeros(sites)


@functools.partial(jax.jit, static_argnums=0)
def _laid_zeros(sites: Sites) -> Deltas:
    return tuple(sharding.lay_edit(g, jnp.zeros((len(g.layers), g.k, g.v), jnp.float32)) for g in sites)


def fresh_stats(sites: Sites) -> Stats:
    """Normalisers that have seen nothing."""
    return tuple(normalizer.init(g.k + g.v) for g in sites)


def shift_of(
    sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, trace: Trace
) -> tuple[Deltas, tuple[Array, ...]]:
    """(weight change of every site, error of its solve), float32; no gradient flows into trace or statistics."""
    trace, stats = jax.lax.stop_gradient((over_devices(trace), stats))
    shift, error = [], []
    with jax.default_matmul_precision("highest"):
        for g, (x_snk, y_snv) in enumerate(rows_of(sites, rule, spec, theta, stats, trace)):
            group = sites[g]
            if rule.ridge is None:
                shift.append(sharding.lay_edit(group, jnp.einsum("snk,snv->skv", x_snk, y_snv)))
                error.append(jnp.zeros(len(group.layers)))
            else:
                by_site = functools.partial(_ridge, group)
                x_snk, y_snv = (sharding.lay(rows, None, sharding.DATA, sharding.MODEL) for rows in (x_snk, y_snv))
                solved = sharding.over_sites(by_site, x_snk, y_snv, rule.ridge(group, spec, theta[g]))
                shift.append(sharding.lay_edit(group, solved.delta_skv))
                error.append(solved.error_s)
    return tuple(shift), tuple(error)


def _ridge(group: SiteGroup, x_snk: Array, y_snv: Array, lambda_s: Array) -> solve.Solved:
    """The ridge solve of some of a group's sites, each with all of its rows."""
    x_snk = sharding.lay(x_snk, None, None, sharding.MODEL)
    y_snv = sharding.lay(y_snv, None, None, sharding.MODEL if group.wide == "v" else None)
    solved = solve.ridge(x_snk, y_snv, lambda_s)
    return solved._replace(delta_skv=sharding.lay_edit(group, solved.delta_skv))


def seen(stats: Stats, trace: Trace) -> Stats:
    """The normalisers with the trace's rows in them."""
    return sharding.lay_whole(
        tuple(
            normalizer.update(one, jnp.concatenate([keys_snk, grads_snv], axis=-1), trace.captured_n)
            for one, keys_snk, grads_snv in zip(stats, trace.keys, trace.grads, strict=True)
        )
    )


see = jax.jit(seen)


def _add(deltas: Deltas, shift: Deltas) -> Deltas:
    return jax.tree.map(jnp.add, deltas, shift)


add = jax.jit(_add)
add_into = jax.jit(_add, donate_argnums=0)


def _learn_shift(
    sites: Sites, rule: ShiftRule, spec: NetSpec, deltas: Deltas, theta: Theta, stats: Stats, trace: Trace
) -> tuple[Deltas, Stats, Deltas, tuple[Array, ...]]:
    """(deltas with the shift added, statistics with the rows added, the shift, its errors)."""
    stats = seen(stats, trace)
    shift, error = shift_of(sites, rule, spec, theta, stats, trace)
    return _add(deltas, shift), stats, shift, error


learn_shift = jax.jit(_learn_shift, static_argnums=(0, 1, 2))
learn_shift_into = jax.jit(_learn_shift, static_argnums=(0, 1, 2), donate_argnums=3)  # the deltas given are gone


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def teachable_shift(
    sites: Sites, rule: ShiftRule, spec: NetSpec, deltas: Deltas, theta: Theta, stats: Stats, trace: Trace
) -> tuple[Deltas, Stats, Deltas, tuple[Array, ...], Any]:
    """`learn_shift`, and the shift's vjp in the network: pulling back need not run the network forward again."""
    stats = seen(stats, trace)
    shift, pull, error = jax.vjp(lambda theta: shift_of(sites, rule, spec, theta, stats, trace), theta, has_aux=True)
    return _add(deltas, shift), stats, shift, error, pull


def joined(traces: Sequence[Trace]) -> Trace:
    """The rows of all traces as one."""
    if len(traces) == 1:
        return traces[0]
    return Trace(
        tuple(jnp.concatenate(parts, axis=1) for parts in zip(*(trace.keys for trace in traces), strict=True)),
        tuple(jnp.concatenate(parts, axis=1) for parts in zip(*(trace.grads for trace in traces), strict=True)),
        jnp.concatenate([trace.captured_n for trace in traces]),
        sum((trace.loss for trace in traces), jnp.zeros(())),
        jnp.concatenate([trace.ce_a for trace in traces]),
    )


def edit_step(
    config: LMConfig,
    sites: Sites,
    rule: ShiftRule,
    spec: NetSpec,
    params: Params,
    deltas: Deltas,
    theta: Theta,
    stats: Stats,
    prompts: Prompts,
    rows_at_once: int = ROWS_AT_ONCE,
    teach: bool = False,
    donate: bool = False,
) -> tuple[Deltas, Stats, StepAux]:
    """Capture on the current weights, update the normaliser, shift, add (METHODS section 5).

    Two compiled programs rather than one: every step shares the capture, only the networks differ in shape. With more
    than `rows_at_once` rows the captured ones wait on the host and the shift is summed up chunk by chunk, unless there
    are fewer of them than a key is wide: a system of the keys' width is never built then. `teach`: the network is to be
    given a gradient. `donate`: nobody else needs the deltas given, which are gone afterwards.
    """
    captured = (capture(config, sites, params, deltas, *one) for one in prompts.passes())
    if prompts.rows <= max(rows_at_once, *(group.k for group in sites)):
        trace = joined(list(captured))
        learn = teachable_shift if teach else (learn_shift_into if donate else learn_shift)
        deltas, stats, shift, error, *pull = learn(sites, rule, spec, deltas, theta, stats, trace)
        return deltas, stats, StepAux((trace,), trace.loss, stats, shift, error, None, *pull)
    waiting, loss = stream.Waiting(sites, min(rows_at_once, stream.CHUNK)), jnp.zeros(())
    for trace in captured:
        stats, loss = see(stats, trace), loss + trace.loss
        waiting.add(trace)
    traces = waiting.chunks()
    shift, error, sums = stream.shift_from(sites, rule, spec, theta, stats, traces)
    deltas = (add_into if donate else add)(deltas, shift)
    return deltas, stats, StepAux(traces, loss, stats, shift, error, sums)
