"""Norm, rope, attention and mlp as pure functions of (weights, x)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax.lm.config import LMConfig, inverse_frequencies
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


def linear(
    weights: dict, x: Float[Array, "*rows k"], tap: Tap | None, capture_at_n: Int[AnyArray, " n"] | None
) -> tuple[Float[Array, "*rows v"], Float[Array, "n k"] | None]:
    """`x (W + delta) + b`, and the inputs at the captured of all rows where the tap has a probe."""
    w_kv = weights["w"]
    if tap is None or tap.delta_kv is None:
        y = x @ w_kv
    elif w_kv.dtype == jnp.float32:
        y = x @ (w_kv + tap.delta_kv)
    else:  # a float32 edit of a bf16 weight stays apart, so that rounding cannot swallow it
        change = jnp.matmul(x.astype(jnp.float32), tap.delta_kv)  # TF32 keeps more of it than the result's dtype will
        y = (jnp.matmul(x, w_kv, preferred_element_type=jnp.float32) + change).astype(x.dtype)
    if "b" in weights:
        y = y + weights["b"]
    if tap is None or tap.probe_nv is None or capture_at_n is None:
        return y, None
    y_mv = y.reshape(-1, y.shape[-1]).at[capture_at_n].add(tap.probe_nv.astype(y.dtype), mode="drop")
    keys_nk = x.reshape(-1, x.shape[-1]).at[capture_at_n].get(mode="fill", fill_value=0)
    return y_mv.reshape(y.shape), keys_nk.astype(jnp.float32)


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
    return jnp.cos(angles), jnp.sin(angles)


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
    scores = jnp.einsum("btgqe,buge->bgqtu", q, k_buge, preferred_element_type=jnp.float32) * config.scale
    scores = cap(scores, config.attention_cap)
    scores = jnp.where(mask_btu[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_buge.dtype)
    return jnp.einsum("bgqtu,buge->btgqe", weights, v_buge).reshape(b, t, h * e)
