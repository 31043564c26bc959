"""The decoder: params and packed tokens to hidden states and logits, with edits and captures at chosen linear maps.

A pass is split where edits begin. `prefix` runs the layers below the lowest edited one: they never change and are never
differentiated, so one prefix serves every later pass over the same prompts. `suffix` runs the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.layers import (
    ACTIVATIONS,
    KVCache,
    Rope,
    Tap,
    attend,
    cap,
    causal_mask,
    linear,
    norm,
    rope_tables,
    rotate,
)
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Batch, Deltas, Sites

Keys = tuple[Float[Array, "_s _n _k"], ...]


@functools.partial(jax.jit, static_argnums=0)
def block(
    config: LMConfig,
    layer: dict,
    x_btd: Float[Array, "b t d"],
    mask_btu: Bool[Array, "b t u"],
    rope: Rope | None,
    taps: dict[str, Tap],
    capture_at_n: Int[AnyArray, " n"] | None,
    cache: tuple[KVCache, Int[Array, ""]] | None,
    at_a: Int[AnyArray, " a"] | None = None,
) -> tuple[Float[Array, "*places d"], dict[str, Array], KVCache | None]:
    """One layer: (hidden states, inputs of the probed maps by module path, the cache with these tokens in it).

    With `at_a` only those rows of the flattened [b * t] go on after attention, as [a d]; the rows of maps that are
    probed after it would be others, so there must be none. Jitted by itself so that the layers of an unrolled program,
    which differ in weights only, are traced once.
    """
    inputs: dict[str, Array] = {}

    def apply(module: str, x: Array) -> Array:
        part, name = module.split(".")
        y, keys_nk = linear(layer[part][name], x, taps.get(module), capture_at_n)
        if keys_nk is not None:
            inputs[module] = keys_nk
        return y

    def finished(name: str, y: Array) -> Array:
        return norm(config, layer[name], y) if config.post_norms else y

    y_btd = norm(config, layer["norm_attn"], x_btd)
    q, k, v = _heads(config, layer, apply, y_btd, rope)
    if cache is not None:
        old, start = cache
        k = jax.lax.dynamic_update_slice_in_dim(old.k_buge, k, start, axis=1)
        v = jax.lax.dynamic_update_slice_in_dim(old.v_buge, v, start, axis=1)
    x, y, heads = x_btd, y_btd, attend(config, q, k, v, mask_btu)
    if at_a is not None:
        x, y, heads = (_rows(one, at_a) for one in (x, y, heads))
    x = x + finished("norm_attn_out", apply("attn.o", heads))
    y = y if config.parallel else norm(config, layer["norm_mlp"], x)
    act, up = ACTIVATIONS[config.activation], apply("mlp.up", y)
    wide = act(apply("mlp.gate", y)) * up if config.gated else act(up)
    x = x + finished("norm_mlp_out", apply("mlp.down", wide))
    return x, inputs, None if cache is None else KVCache(k, v)


def _rows(x_btd: Float[Array, "b t d"], at_a: Int[AnyArray, " a"]) -> Float[Array, "a d"]:
    """Rows of the flattened [b * t]; zeros for places past its end."""
    return x_btd.reshape(-1, x_btd.shape[-1]).at[at_a].get(mode="fill", fill_value=0)


def _heads(
    config: LMConfig, layer: dict, apply: Callable[[str, Array], Array], y_btd: Array, rope: Rope | None
) -> tuple[Array, Array, Array]:
    """Queries [b t h e], keys and values [b t g e], normed and turned as the family does."""
    b, t, _ = y_btd.shape
    h, g, e = config.h, config.g, config.e
    if config.fused_qkv:
        flat = jnp.split(apply("attn.qkv", y_btd), [h * e, (h + g) * e], axis=-1)
    else:
        flat = [apply(f"attn.{name}", y_btd) for name in "qkv"]
    q, k, v = (one.reshape(b, t, heads, e) for one, heads in zip(flat, (h, g, g), strict=True))
    if config.qk_norm:
        q, k = norm(config, layer["norm_q"], q), norm(config, layer["norm_k"], k)
    if rope is not None:
        q, k = (rotate(one, rope, config.rope_neighbours) for one in (q, k))
    return q, k, v


class Around(NamedTuple):
    """What a layer needs to know of its tokens: which see which, and their positions' angles."""

    mask_btu: Bool[Array, "b t u"]
    rope: Rope | None


def surroundings(
    config: LMConfig, positions_bt: Int[AnyArray, "b t"], mask_btu: Bool[Array, "b t u"], start: Array | int = 0
) -> list[Around]:
    """Per layer. `mask_btu` is that of full layers, `start` the column of the first token in it."""
    t, u = mask_btu.shape[1:]
    near = mask_btu
    if config.window is not None:
        distance_tu = start + jnp.arange(t)[:, None] - jnp.arange(u)
        near = mask_btu & (distance_tu < config.window)
    rope = None if config.learned_positions else rope_tables(config, positions_bt)
    local = rope_tables(config, positions_bt, local=True) if config.local_theta is not None else rope
    return [
        Around(
            near if layer in config.windowed else mask_btu,
            None if layer in config.no_rope else local if layer in config.windowed else rope,
        )
        for layer in range(config.num_layers)
    ]


def lowest_layer(sites: Sites) -> int:
    """The first layer that an edit may change; those below make the prefix."""
    return min(min(group.layers) for group in sites)


def embed(
    config: LMConfig, params: Params, tokens_bt: Int[AnyArray, "b t"], positions_bt: Int[AnyArray, "b t"]
) -> Float[Array, "b t d"]:
    """Token embeddings, scaled, with those of learned positions."""
    x_btd = params["embed"]["w"][tokens_bt]
    if config.embed_scale != 1.0:
        x_btd = x_btd * jnp.asarray(config.embed_scale, x_btd.dtype)
    return x_btd + params["positions"]["w"][positions_bt] if config.learned_positions else x_btd


def layer_taps(sites: Sites, layer: int, deltas: Deltas | None, probes: Deltas | None) -> dict[str, Tap]:
    """The taps of one layer by module path, out of the per-shape stacks."""
    taps: dict[str, Tap] = {}
    for number, group in enumerate(sites):
        for s, place in enumerate(zip(group.layers, group.modules, strict=True)):
            if place[0] == layer:
                taps[place[1]] = Tap(*(None if tree is None else tree[number][s] for tree in (deltas, probes)))
    return taps


def prefix(
    config: LMConfig,
    params: Params,
    stop: int,
    tokens_bt: Int[AnyArray, "b t"],
    positions_bt: Int[AnyArray, "b t"],
    segments_bt: Int[AnyArray, "b t"],
) -> Float[Array, "b t d"]:
    """Hidden states after the layers below `stop`, which no edit reaches."""
    around = surroundings(config, positions_bt, causal_mask(segments_bt))
    x_btd = embed(config, params, tokens_bt, positions_bt)
    for layer, (mask, rope) in zip(params["layers"][:stop], around[:stop], strict=True):
        x_btd, _, _ = block(config, layer, x_btd, mask, rope, {}, None, None)
    return x_btd


def suffix(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | None,
    prefix_btd: Float[Array, "b t d"],
    positions_bt: Int[AnyArray, "b t"],
    segments_bt: Int[AnyArray, "b t"],
    probes: Deltas | None = None,
    capture_at_n: Int[AnyArray, " n"] | None = None,
    at_a: Int[AnyArray, " a"] | None = None,
) -> tuple[Float[Array, "*places d"], Keys]:
    """From the prefix's hidden states to the last layer's (before the final norm), with edits in place.

    With probes, also the inputs of every edit site at the captured rows, per site group. With `at_a` only those rows of
    the flattened [b * t] come out, as [a d], and the last layer's widest maps run on them alone.
    """
    around = surroundings(config, positions_bt, causal_mask(segments_bt))
    found: dict[tuple[int, str], Array] = {}
    x, last = prefix_btd, config.num_layers - 1
    for number in range(lowest_layer(sites), config.num_layers):
        taps = layer_taps(sites, number, deltas, probes)
        rows = at_a if number == last and (probes is None or not taps) else None
        x, inputs, _ = block(config, params["layers"][number], x, *around[number], taps, capture_at_n, None, rows)
        found |= {(number, module): keys_nk for module, keys_nk in inputs.items()}
    if at_a is not None and x.ndim == prefix_btd.ndim:
        x = _rows(x, at_a)
    if probes is None:
        return x, ()
    return x, tuple(jnp.stack([found[place] for place in zip(g.layers, g.modules, strict=True)]) for g in sites)


def logits(config: LMConfig, params: Params, x: Float[Array, "*rows d"]) -> Float[Array, "*rows V"]:
    """Final norm and head; float32."""
    y = norm(config, params["norm"], x)
    head_Vd = params["embed" if config.tied_head else "head"]["w"]
    scores = jnp.einsum("...d,Vd->...V", y, head_Vd, preferred_element_type=jnp.float32)
    if config.head_bias:
        scores = scores + params["head"]["b"].astype(jnp.float32)
    return cap(scores, config.logit_cap)


def answer_logits(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | None,
    prefix_btd: Float[Array, "b t d"],
    batch: Batch,
    probes: Deltas | None = None,
) -> tuple[Float[Array, "a V"], Keys]:
    """Logits of the edited model at the batch's answer rows only (b x t x vocabulary is never built), and its keys."""
    where = batch.positions_bt, batch.segments_bt, probes, batch.capture_at_n, batch.answer_at_a
    x_ad, keys = suffix(config, sites, params, deltas, prefix_btd, *where)
    return logits(config, params, x_ad), keys
