"""One edit, pure: (params, deltas, theta, stats, prompts) -> (deltas', stats', what was seen on the way)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import normalizer, stream
from emsedit_jax.edit.capture import Prompts, capture
from emsedit_jax.edit.factors import Factors, added, dense, factors_of, norms_of
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule
from emsedit_jax.edit.stream import Sums
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Deltas, Sites, Stats, Theta, Trace, pytree

ROWS_AT_ONCE = 4096  # captured token rows that the device holds together; more are streamed


class Pull(NamedTuple):
    """The way back from a shift to its network, with what it kept on the way there (`meta.gradient.pull`)."""

    factors: tuple[Factors, ...]
    vjp: Any  # of the factors in the network


@pytree
class StepAux:
    """What one edit step saw and did: enough to differentiate it again."""

    traces: tuple[Trace, ...]  # one, or what was streamed, in chunks without padding (on the host)
    loss: Float[AnyArray, ""]  # nats, micro-batch means summed
    stats: Stats  # as used by the shift, this step's rows included
    norms: tuple[Float[Array, " _s"], ...]  # of the shift, per group
    error: tuple[Float[Array, " _s"], ...]  # of the ridge solve (`solve.Solved`), per group
    shift: Deltas | None = None  # None where it was not asked for
    sums: Sums | None = None  # of a streamed shift
    pull: Pull | None = None  # None where it was not asked for
    factors: tuple[Factors, ...] | None = None  # of the shift, likewise: as few numbers as there are, also over devices

    def without_rows(self) -> StepAux:
        """For those who will not differentiate it."""
        return dataclasses.replace(self, traces=(), sums=None, pull=None)


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
    found = factors_of(sites, rule, spec, theta, stats, trace)
    return dense(sites, found.shift), found.error


def seen(stats: Stats, trace: Trace) -> Stats:
    """The normalisers with the trace's rows in them."""
    return sharding.lay_whole(
        tuple(
            normalizer.update(one, jnp.concatenate([keys_snk, grads_snv], axis=-1), trace.captured_n)
            for one, keys_snk, grads_snv in zip(stats, trace.keys, trace.grads, strict=True)
        )
    )


see = jax.jit(seen)


def _add(deltas: Deltas, shift: Deltas) -> tuple[Deltas, tuple[Array, ...]]:
    return jax.tree.map(jnp.add, deltas, shift), tuple(map(norms_of, shift))


add = jax.jit(_add)
add_into = jax.jit(_add, donate_argnums=0)


class Learnt(NamedTuple):
    """What comes of a shift."""

    deltas: Deltas  # with the shift in them
    stats: Stats  # with the rows in them
    norms: tuple[Float[Array, " _s"], ...]
    error: tuple[Float[Array, " _s"], ...]
    shift: Deltas | None
    pull: Pull | None
    factors: tuple[Factors, ...] | None


def _learn_shift(
    sites: Sites,
    rule: ShiftRule,
    spec: NetSpec,
    deltas: Deltas,
    theta: Theta,
    stats: Stats,
    trace: Trace,
    teach: bool = False,
    shifts: bool = False,
    factors: bool = False,
) -> Learnt:
    """Statistics, shift and edits; `teach`, `shifts` and `factors` as in `edit_step`."""
    stats = seen(stats, trace)

    def found(theta: Theta) -> tuple[tuple[Factors, ...], tuple[tuple[Array, ...], tuple[Factors, ...]]]:
        shift, error, small = factors_of(sites, rule, spec, theta, stats, trace)
        return shift, (error, small)

    if teach:
        shift, vjp, (error, small) = jax.vjp(found, theta, has_aux=True)
    else:
        (shift, (error, small)), vjp = found(theta), None
    deltas, norms = added(sites, deltas, shift)
    pull = Pull(shift, vjp) if teach else None
    whole = dense(sites, shift) if shifts else None
    return Learnt(deltas, stats, norms, error, whole, pull, small if factors else None)


learn_shift = jax.jit(_learn_shift, static_argnums=(0, 1, 2, 7, 8, 9))
learn_shift_into = jax.jit(
    _learn_shift, static_argnums=(0, 1, 2, 7, 8, 9), donate_argnums=3
)  # the deltas given are gone


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
    shifts: bool = True,
    factors: bool = False,
) -> tuple[Deltas, Stats, StepAux]:
    """Capture on the current weights, update the normaliser, shift, add (METHODS section 5).

    Two compiled programs rather than one: every step shares the capture, only the networks differ in shape. With more
    than `rows_at_once` rows the captured ones wait on the host and the shift is summed up chunk by chunk, unless there
    are fewer of them than a key is wide: a system of the keys' width is never built then.

    Args:
      teach: the network is to be given a gradient.
      donate: nobody else needs the deltas given, which are gone afterwards.
      shifts: the shift is wanted by itself; otherwise it is only in the edits.
      factors: likewise, in its factors.
    """
    captured = (capture(config, sites, params, deltas, *one) for one in prompts.passes())
    if prompts.rows <= max(rows_at_once, *(group.k for group in sites)):
        trace = joined(list(captured))
        learn = learn_shift_into if donate else learn_shift
        learnt = learn(sites, rule, spec, deltas, theta, stats, trace, teach, shifts, factors)
        seen_by = learnt.stats, learnt.norms, learnt.error
        aux = StepAux((trace,), trace.loss, *seen_by, learnt.shift, None, learnt.pull, learnt.factors)
        return learnt.deltas, learnt.stats, aux
    waiting, loss = stream.Waiting(sites, min(rows_at_once, stream.CHUNK)), jnp.zeros(())
    for trace in captured:
        stats, loss = see(stats, trace), loss + trace.loss
        waiting.add(trace)
    traces = waiting.chunks()
    shift, error, sums = stream.shift_from(sites, rule, spec, theta, stats, traces)
    deltas, norms = (add_into if donate else add)(deltas, shift)
    whole = tuple(Factors(None, one_skv) for one_skv in shift) if factors else None
    return deltas, stats, StepAux(traces, loss, stats, norms, error, shift, sums, None, whole)
