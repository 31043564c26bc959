"""From a trace to a weight change: one rule per editor, all sites of one shape at once (METHODS section 4).

A rule is `(group, spec, theta, stats, keys_snk, grads_snv, captured_n) -> delta_skv`, pure and differentiable in theta.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emsedit_jax.edit import hypernet, normalizer, solve
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.types import NormStats, SiteGroup

ShiftRule = Callable[..., Array]


def learned_ridge(
    group: SiteGroup,
    spec: NetSpec,
    theta: dict,
    stats: NormStats,
    keys_snk: Float[Array, "s n k"],
    grads_snv: Float[Array, "s n v"],
    captured_n: Bool[Array, " n"],
) -> Float[Array, "s k v"]:
    """MALMEN, RLEdit, EMSEdit: value differences `-eta (k . k~) g~` from the network, solved on the raw keys.

    An unused row has a key of zero, hence a value difference of zero.
    """
    net = hypernet.merge(group, spec, theta)
    rows_snc = normalizer.apply(stats, jnp.concatenate([keys_snk, grads_snv], axis=-1))
    pseudo_keys_snk, pseudo_grads_snv = net(rows_snc)
    strength_sn1 = jnp.sum(keys_snk * pseudo_keys_snk, axis=-1, keepdims=True)
    y_snv = -net.lr[...][:, :, None] * strength_sn1 * pseudo_grads_snv
    return solve.ridge(keys_snk, y_snv, jnp.exp(net.lamda[...][:, 0]))


def normalised_ridge(
    group: SiteGroup,
    spec: NetSpec,
    theta: None,
    stats: NormStats,
    keys_snk: Float[Array, "s n k"],
    grads_snv: Float[Array, "s n v"],
    captured_n: Bool[Array, " n"],
) -> Float[Array, "s k v"]:
    """UltraEdit: value differences `-eta |k^|^2 g^` from the normalised rows themselves, ridge coefficient 1."""
    rows_snc = normalizer.apply(stats, jnp.concatenate([keys_snk, grads_snv], axis=-1))
    strength_sn1 = jnp.sum(jnp.square(rows_snc[..., : group.k]), axis=-1, keepdims=True)
    y_snv = jnp.where(captured_n[:, None], -spec.lr * strength_sn1 * rows_snc[..., group.k :], 0.0)
    return solve.ridge(keys_snk, y_snv, jnp.ones(len(group.layers), jnp.float32))
