"""From captured rows to the ridge system of a shift: one rule per editor, all sites of one shape at once (METHODS 4).

Every shift is `(X^T X + lambda I)^-1 X^T Y`, or plainly `X^T Y`; a rule says what X, Y and lambda are, no more.
Both are sums over rows, so that rows may come in any number of chunks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emsedit_jax import sharding
from emsedit_jax.edit import hypernet, normalizer
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.types import NormStats, SiteGroup, Sites, Stats, Theta, Trace


class Rows(NamedTuple):
    """The rows of the system; one that is not used is zero in y, and in x wherever there is a ridge.

    A row that is held has a key in x and zero in y: the shift is to give that key nothing.
    """

    x_snk: Float[Array, "s n k"]
    y_snv: Float[Array, "s n v"]


class ShiftRule(NamedTuple):
    """How an editor turns rows into a shift; pure and differentiable in theta. Static: its functions pick a program."""

    rows: Callable[..., Rows]  # (group, spec, theta, stats, keys_snk, grads_snv, captured_n)
    ridge: Callable[..., Array] | None  # (group, spec, theta) -> lambda_s; None: no solve


def over_devices(trace: Trace) -> Trace:
    """The rows over all devices: a network takes them one by one."""
    return dataclasses.replace(trace, keys=sharding.lay_rows(trace.keys), grads=sharding.lay_rows(trace.grads))


def rows_of(sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, trace: Trace) -> list[Rows]:
    """The system's rows of every site group."""
    return [
        rule.rows(group, spec, theta[g], stats[g], trace.keys[g], trace.grads[g], trace.captured_n)
        for g, group in enumerate(sites)
    ]


def learned_rows(
    group: SiteGroup,
    spec: NetSpec,
    theta: dict,
    stats: NormStats,
    keys_snk: Float[Array, "s n k"],
    grads_snv: Float[Array, "s n v"],
    captured_n: Bool[Array, " n"],
) -> Rows:
    """Raw keys, and value differences `-eta (k . k~) g~` from the network."""
    net, pseudo_keys_snk, pseudo_grads_snv = _pseudo(group, spec, theta, stats, keys_snk, grads_snv)
    strength_sn1 = jnp.sum(keys_snk * pseudo_keys_snk, axis=-1, keepdims=True)
    y_snv = -net.lr[...][:, :, None] * strength_sn1 * pseudo_grads_snv
    return Rows(keys_snk, jnp.where(captured_n[:, None], y_snv, 0.0))


def learned_ridge(group: SiteGroup, spec: NetSpec, theta: dict) -> Float[Array, " s"]:
    """Each site's own coefficient, trained as its logarithm."""
    return jnp.exp(hypernet.merge(group, spec, theta).lamda[...][:, 0])


def pseudo_rows(
    group: SiteGroup,
    spec: NetSpec,
    theta: dict,
    stats: NormStats,
    keys_snk: Float[Array, "s n k"],
    grads_snv: Float[Array, "s n v"],
    captured_n: Bool[Array, " n"],
) -> Rows:
    """Pseudo-keys k~, and `-eta g~`."""
    net, pseudo_keys_snk, pseudo_grads_snv = _pseudo(group, spec, theta, stats, keys_snk, grads_snv)
    y_snv = -net.lr[...][:, :, None] * pseudo_grads_snv
    return Rows(pseudo_keys_snk, jnp.where(captured_n[:, None], y_snv, 0.0))


def normalised_rows(
    group: SiteGroup,
    spec: NetSpec,
    theta: None,
    stats: NormStats,
    keys_snk: Float[Array, "s n k"],
    grads_snv: Float[Array, "s n v"],
    captured_n: Bool[Array, " n"],
) -> Rows:
    """Raw keys, and value differences `-eta |k^|^2 g^` from the normalised rows themselves."""
    rows_snc = normalizer.apply(stats, jnp.concatenate([keys_snk, grads_snv], axis=-1))
    strength_sn1 = jnp.sum(jnp.square(rows_snc[..., : group.k]), axis=-1, keepdims=True)
    y_snv = -spec.lr * strength_sn1 * rows_snc[..., group.k :]
    return Rows(keys_snk, jnp.where(captured_n[:, None], y_snv, 0.0))


def unit_ridge(group: SiteGroup, spec: NetSpec, theta: None) -> Float[Array, " s"]:
    """A coefficient of 1 at every site."""
    return jnp.ones(len(group.layers), jnp.float32)


def _pseudo(group: SiteGroup, spec: NetSpec, theta: dict, stats: NormStats, keys_snk: Array, grads_snv: Array):
    """(the network, pseudo-keys, pseudo-gradients)."""
    net = hypernet.merge(group, spec, theta)
    return net, *net(normalizer.apply(stats, jnp.concatenate([keys_snk, grads_snv], axis=-1)))


LEARNED_RIDGE = ShiftRule(learned_rows, learned_ridge)  # MALMEN, RLEdit, EMSEdit
NORMALISED_RIDGE = ShiftRule(normalised_rows, unit_ridge)  # UltraEdit
PSEUDO_PRODUCT = ShiftRule(pseudo_rows, None)  # MEND
