"""A shift before it is as large as the weights: the product `X^T Y` of each site, left open.

A shift has few rows and wide sides. It is added to the edits one site after the other: a site's product is still near
the processor then, and those of all sites, as large as the edits, are never built. What a gradient with respect to it
does to X and Y is known without it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import apart, solve
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule, over_devices, rows_of
from emsedit_jax.types import BySite, Deltas, SiteGroup, Sites, Stats, Theta, Trace


class Factors(NamedTuple):
    """The shift of one site group: `x^T y` of each site, or y itself where x is None."""

    x_snk: Float[Array, "s n k"] | None
    y: Float[Array, "s _m v"]


class Found(NamedTuple):
    """The shift of every site group, float32."""

    shift: tuple[Factors, ...]  # as it is added to the edits
    error: tuple[Float[Array, " _s"], ...]  # of its solves
    small: tuple[Factors, ...]  # the shift again, as it is kept: open also where it was multiplied over devices


def factors_of(sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, trace: Trace) -> Found:
    """The shift; no gradient flows into trace or statistics."""
    trace, stats = jax.lax.stop_gradient((over_devices(trace), stats))
    shift, error, small = [], [], []
    with jax.default_matmul_precision("highest"):
        for g, (x_snk, y_snv) in enumerate(rows_of(sites, rule, spec, theta, stats, trace)):
            group = sites[g]
            if rule.ridge is None:
                one = kept = Factors(x_snk, y_snv)
                error_s = jnp.zeros(len(group.layers))
            else:
                one, error_s, kept = _solved(group, x_snk, y_snv, rule.ridge(group, spec, theta[g]))
            shift.append(one)
            error.append(error_s)
            small.append(kept)
    return Found(tuple(shift), tuple(error), tuple(small))


def _solved(group: SiteGroup, x_snk: Array, y_snv: Array, lambda_s: Array) -> tuple[Factors, Array, Factors]:
    """(shift, error, the shift as it is kept) of a group's ridge solves, open where the rows' system is the smaller.

    Over devices each multiplies what it solved, so that none makes the product of a site that others have.
    """
    if sharding.alone() and solve.chooses_dual(*x_snk.shape[1:]):
        found = solve.dual_rows(x_snk, y_snv, lambda_s)
        one = Factors(x_snk, found.delta_skv)
        return one, found.error_s, one
    found = apart.solved(group, x_snk, y_snv, lambda_s)
    one = Factors(None, found.delta_skv)
    return one, found.error_s, one if found.rows_snv is None else Factors(sharding.lay_rows(x_snk), found.rows_snv)


def closed(sites: Sites, factors: tuple[Factors, ...]) -> tuple[Factors, ...]:
    """What was kept of a shift, as it is added to the edits: multiplied over devices as after a solve."""
    if sharding.alone():
        return factors
    return tuple(
        Factors(None, y if x_snk is None else apart.multiplied(group, x_snk, y))
        for group, (x_snk, y) in zip(sites, factors, strict=True)
    )


@jax.default_matmul_precision("highest")
def dense(sites: Sites, factors: tuple[Factors, ...]) -> Deltas:
    """The shift itself."""
    return tuple(
        y if x_snk is None else sharding.lay_edit(group, jnp.einsum("snk,snv->skv", x_snk, y))
        for group, (x_snk, y) in zip(sites, factors, strict=True)
    )


@jax.default_matmul_precision("highest")
def added(sites: Sites, deltas: Deltas, factors: tuple[Factors, ...]) -> tuple[Deltas, tuple[Float[Array, " _s"], ...]]:
    """(the edits with the shift in them, its Frobenius norm at each site)."""
    found, norms = [], []
    for group, delta_skv, one in zip(sites, deltas, factors, strict=True):
        x_snk, y = one
        if x_snk is None or not sharding.alone():
            (shift_skv,) = dense((group,), (one,))
            found.append(delta_skv + shift_skv)
            norms.append(norms_of(shift_skv))
            continue
        delta_skv, norm_s = jax.lax.scan(_site_added, delta_skv, (jnp.arange(len(y)), x_snk, y))
        found.append(delta_skv)
        norms.append(norm_s)
    return tuple(found), tuple(norms)


def _site_added(delta_skv: Array, one: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """(the edits with one more site's shift in them, in place; its norm)."""
    s, x_nk, y_nv = one
    shift_kv = jnp.matmul(x_nk.T, y_nv)
    delta_kv = jax.lax.dynamic_index_in_dim(delta_skv, s, keepdims=False) + shift_kv
    return jax.lax.dynamic_update_index_in_dim(delta_skv, delta_kv, s, 0), jnp.linalg.norm(shift_kv)


def norms_of(shift_skv: Float[Array, "s k v"]) -> Float[Array, " s"]:
    """Frobenius norm of each site."""
    return jnp.sqrt(jnp.sum(jnp.square(shift_skv), axis=(1, 2)))


@jax.default_matmul_precision("highest")
def cotangent(factors: tuple[Factors, ...], gradient: BySite) -> tuple[Factors, ...]:
    """What a gradient with respect to the shift is with respect to its factors."""
    return tuple(map(_cotangent, factors, gradient))


def _cotangent(one: Factors, gradient_s: tuple[Float[Array, "k v"], ...]) -> Factors:
    x_snk, y = one
    if x_snk is None:
        return Factors(None, jnp.stack(gradient_s))
    found = [_of_site(*given) for given in zip(x_snk, y, gradient_s, strict=True)]
    return Factors(*map(jnp.stack, zip(*found, strict=True)))


def _of_site(x_nk: Array, y_nv: Array, gradient_kv: Array) -> tuple[Array, Array]:
    return jnp.matmul(y_nv, gradient_kv.T), jnp.matmul(x_nk, gradient_kv)
