"""Norm, rope, attention and mlp as pure functions of (weights, x)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax.lm.config import LMConfig, inverse_frequencies
from emsedit_jax.lm.layout import Captured, cut
from emsedit_jax.types import AnyArray

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


class Tap(NamedTuple):
    """What is done at one edit site: a weight change, and a probe at the captured rows.

    The probe is a zero that is added to the site's output: its gradient is the value gradient.
    """

    delta_kv: Float[Array, "k v"] | None
    probe_nv: Float[Array, "n v"] | None


Rope = tuple[Float[Array, "b t _pairs"], Float[Array, "b t _pairs"]]


class KVCache(NamedTuple):
    """Keys and values of the tokens a generator has passed, for one layer; `u` is the cache's length."""

    k_buge: Float[Array, "b u g e"]
    v_buge: Float[Array, "b u g e"]


def precision(x: Array) -> jax.lax.Precision | None:
    """Of products with such weights: float32 in float32, not in TF32 or bf16; others as fast as can be."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def product(
    parts: tuple[Float[Array, "*_rows k"], ...], w_kv: Float[Array, "k v"], delta_kv: Float[Array, "k v"] | None = None
) -> tuple[Array, ...]:
    """`x (W + delta)` of each part in one product: on a CPU each packs W anew. All parts but the last are constants.

    Its derivative is a product for the last part's rows alone, which JAX would take for all of them. An edited weight
    is summed up where it is used, and again on the way back: those of all sites are as large as the edits.
    """
    if len(parts) == 1 and delta_kv is None:
        return (jnp.matmul(parts[0], w_kv, precision=precision(w_kv)),)
    *fixed, last = _product(parts, w_kv, delta_kv)
    return (*map(jax.lax.stop_gradient, fixed), last)


def _edited(w_kv: Array, delta_kv: Array | None, before: Array) -> Array:
    """The weight with its edit, not summed up before that array is there, nor shared with another place."""
    if delta_kv is None:
        return w_kv
    zero = jnp.minimum(jnp.abs(before.reshape(-1)[0]), 0)
    return w_kv + (delta_kv + zero)


@jax.custom_vjp
def _product(parts: tuple[Array, ...], w_kv: Array, delta_kv: Array | None) -> tuple[Array, ...]:
    rows = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
    found = jnp.matmul(rows, _edited(w_kv, delta_kv, rows), precision=precision(w_kv))
    return cut(found, parts) if len(parts) > 1 else (found,)


def _product_forth(parts: tuple[Array, ...], w_kv: Array, delta_kv: Array | None) -> tuple[tuple[Array, ...], tuple]:
    return _product(parts, w_kv, delta_kv), (parts, w_kv, delta_kv)


def _product_back(given: tuple, found: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array, Array | None]:
    (*fixed, last), w_kv, delta_kv = given
    multiply = functools.partial(jnp.einsum, precision=precision(w_kv))
    of_last = multiply("...v,kv->...k", found[-1], _edited(w_kv, delta_kv, found[-1]))
    of_weight = multiply("...k,...v->kv", last, found[-1])
    return (*map(jnp.zeros_like, fixed), of_last), of_weight, None if delta_kv is None else of_weight


_product.defvjp(_product_forth, _product_back)


def linear(
    weights: dict, parts: tuple[Float[Array, "*_rows k"], ...], tap: Tap | None, captured: Captured | None
) -> tuple[tuple[Float[Array, "*_rows v"], ...], Float[Array, "n k"] | None]:
    """`x (W + delta) + b` of each part, and the inputs at the captured rows where the tap has a probe.

    Captured rows lie in the last part; all others are constants.
    """
    w_kv, delta_kv, probe_nv = weights["w"], *(tap or Tap(None, None))
    if delta_kv is not None and w_kv.dtype != jnp.float32:
        outs = tuple(_beside(x, w_kv, delta_kv) for x in parts)
    else:
        outs = product(parts, w_kv, delta_kv)
    if "b" in weights:
        outs = tuple(y + weights["b"] for y in outs)
    if probe_nv is None or captured is None:
        return outs, None
    x, (*fixed, y) = parts[-1], outs
    keys_nk = captured.collect(x.reshape(-1, x.shape[-1])).astype(jnp.float32)
    return (*fixed, y + captured.spread(probe_nv.astype(y.dtype)).reshape(y.shape)), keys_nk


def _beside(x: Array, w_kv: Array, delta_kv: Array) -> Array:
    """A float32 edit of a bf16 weight stays apart from it, so that rounding cannot swallow it."""
    change = jnp.matmul(x.astype(jnp.float32), delta_kv)  # TF32 keeps more of it than the result's dtype will
    return (jnp.matmul(x, w_kv, preferred_element_type=jnp.float32) + change).astype(x.dtype)


def norm(config: LMConfig, weights: dict, x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
    """The family's norm over features, computed in float32."""
    x32 = x.astype(jnp.float32)
    if config.layer_norm:
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    scaled = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + config.norm_eps)
    if config.layer_norm:
        return (scaled * weights["w"].astype(jnp.float32) + weights["b"].astype(jnp.float32)).astype(x.dtype)
    if config.norm_offset:
        return (scaled * (1 + weights["w"].astype(jnp.float32))).astype(x.dtype)
    return weights["w"] * scaled.astype(x.dtype)


def cap(scores: Array, bound: float | None) -> Array:
    """Squeezed into (-bound, bound); as they are where there is no bound."""
    return scores if bound is None else bound * jnp.tanh(scores / bound)


def rope_tables(config: LMConfig, positions_bt: Int[AnyArray, "b t"], local: bool = False) -> Rope:
    """Cosine and sine of every position's angles in float32; `local`: those of windowed layers."""
    frequencies = jnp.asarray(inverse_frequencies(config, local), jnp.float32)
    angles = positions_bt[..., None].astype(jnp.float32) * frequencies
    tables = jnp.stack([jnp.cos(angles), jnp.sin(angles)])
    identity = jnp.eye(len(frequencies), dtype=jnp.float32)  # exact; XLA takes cosines anew in every use, products not
    cos, sin = jnp.matmul(tables, identity, precision=jax.lax.Precision.HIGHEST)
    return cos, sin


def rotate(x: Float[Array, "b t heads e"], rope: Rope, neighbours: bool = False) -> Float[Array, "b t heads e"]:
    """Turns pairs of each head's first features, j with j + half or 2j with 2j + 1, by the position's angle."""
    cos, sin = (table[:, :, None, :] for table in rope)
    pairs = cos.shape[-1]
    x32 = x[..., : 2 * pairs].astype(jnp.float32)
    first, second = (x32[..., ::2], x32[..., 1::2]) if neighbours else jnp.split(x32, 2, axis=-1)
    both = first * cos - second * sin, second * cos + first * sin
    turned = jnp.stack(both, axis=-1).reshape(x32.shape) if neighbours else jnp.concatenate(both, axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), x[..., 2 * pairs :]], axis=-1)


def causal_mask(segments_bt: Int[AnyArray, "b t"]) -> Bool[Array, "b t t"]:
    """Which columns (last axis) each position sees: its own segment's, up to itself. Segment 0 is padding."""
    t = segments_bt.shape[1]
    same = segments_bt[:, :, None] == segments_bt[:, None, :]
    return same & jnp.tril(jnp.ones((t, t), bool))


def attend(
    config: LMConfig,
    q_bthe: Float[Array, "b t h e"],
    k_buge: Float[Array, "b u g e"],
    v_buge: Float[Array, "b u g e"],
    mask_btu: Bool[Array, "b t u"],
) -> Float[Array, "b t o"]:
    """Grouped-query attention; scores and softmax in float32. The output is flattened over heads, o = h * e."""
    b, t, h, e = q_bthe.shape
    g = k_buge.shape[2]
    q = q_bthe.reshape(b, t, g, h // g, e)
    product = functools.partial(jnp.einsum, precision=precision(v_buge))
    scores = product("btgqe,buge->bgqtu", q, k_buge, preferred_element_type=jnp.float32) * config.scale
    scores = cap(scores, config.attention_cap)
    scores = jnp.where(mask_btu[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_buge.dtype)
    return product("bgqtu,buge->btgqe", weights, v_buge).reshape(b, t, h * e)
