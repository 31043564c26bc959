"""The decoder: params and packed tokens to hidden states and logits, with edits and captures at chosen linear maps.

A pass is split where edits begin. `prefix` runs the layers below the lowest edited one: they never change and are never
differentiated, so one prefix serves every later pass over the same prompts. `suffix` runs the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax import sharding
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
    precision,
    rope_tables,
    rotate,
)
from emsedit_jax.lm.layout import Captured, Layout, captured_of, cut, of_batch
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Batch, BySite, Deltas, Probes, Sites

Keys = tuple[Float[Array, "_s _n _k"], ...]
Parts = tuple[Float[Array, "_m d"], ...]  # hidden states of all tokens, in one array or cut in several


@functools.partial(jax.jit, static_argnums=(0, 9))
def block(
    config: LMConfig,
    layer: dict,
    parts: tuple[Float[Array, "*_rows d"], ...],
    mask_btu: Bool[Array, "b t u"],
    rope: Rope | None,
    taps: dict[str, Tap],
    captured: Captured | None,
    layout: Layout | None,
    cache: tuple[KVCache, Int[Array, ""]] | None,
    keep: int | None = None,
) -> tuple[tuple[Float[Array, "*_rows d"], ...], dict[str, Array], KVCache | None]:
    """One layer: (hidden states, inputs of the probed maps by module path, the cache with these tokens in it).

    Jitted by itself so that the layers of an unrolled program, which differ in weights only, are traced once.

    Args:
      parts: all tokens; without a layout one [b, t, d], else flat rows, in parts that are pulled back one by one.
      captured: which rows of the last part are; parts before it are constants.
      layout: of the flat rows.
      keep: so many last rows alone go on after attention; the others serve them by their keys and values.
    """
    inputs: dict[str, Array] = {}

    def apply(module: str, parts: tuple[Array, ...]) -> tuple[Array, ...]:
        part, name = module.split(".")
        outs, keys_nk = linear(layer[part][name], parts, taps.get(module), captured)
        if keys_nk is not None:
            inputs[module] = keys_nk
        return outs

    def normed(name: str, parts: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(norm(config, layer[name], x) for x in parts)

    def added(name: str, to: tuple[Array, ...], parts: tuple[Array, ...]) -> tuple[Array, ...]:
        parts = normed(name, parts) if config.post_norms else parts
        *fixed, last = (x + y for x, y in zip(to, parts, strict=True))
        return (*fixed, _divided(last) if fixed else last)

    y = normed("norm_attn", parts)
    q, k, v = _heads(config, layer, apply, y, rope, layout)
    if cache is not None:
        old, start = cache
        k = jax.lax.dynamic_update_slice_in_dim(old.k_buge, k, start, axis=1)
        v = jax.lax.dynamic_update_slice_in_dim(old.v_buge, v, start, axis=1)
    heads_bto = attend(config, q, k, v, mask_btu)
    heads = (heads_bto,) if layout is None else cut(layout.collect(heads_bto), parts)
    if keep is not None:
        parts, y, heads = ((one[-1][-keep:],) for one in (parts, y, heads))
    parts = added("norm_attn_out", parts, apply("attn.o", heads))
    y = y if config.parallel else normed("norm_mlp", parts)
    act, up = ACTIVATIONS[config.activation], apply("mlp.up", y)
    gate = apply("mlp.gate", y) if config.gated else ()
    wide = tuple(act(one) * other for one, other in zip(gate, up, strict=True)) if gate else tuple(map(act, up))
    parts = added("norm_mlp_out", parts, apply("mlp.down", wide))
    return parts, inputs, None if cache is None else KVCache(k, v)


def _divided(x: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """Hidden states that are kept for a capture's way back: each device of `model` has some of their features."""
    return sharding.lay(x, None, sharding.MODEL)


def _heads(
    config: LMConfig,
    layer: dict,
    apply: Callable[[str, tuple[Array, ...]], tuple[Array, ...]],
    y: tuple[Array, ...],
    rope: Rope | None,
    layout: Layout | None,
) -> tuple[Array, Array, Array]:
    """Queries [b t h e], keys and values [b t g e], normed and turned as the family does."""
    h, g, e = config.h, config.g, config.e

    def spread(module: str) -> Array:
        parts = apply(module, y)
        return parts[0] if layout is None else layout.spread(parts)

    if config.fused_qkv:
        flat = jnp.split(spread("attn.qkv"), [h * e, (h + g) * e], axis=-1)
    else:
        flat = [spread(f"attn.{name}") for name in "qkv"]
    q, k, v = (one.reshape(*one.shape[:2], heads, e) for one, heads in zip(flat, (h, g, g), strict=True))
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
    """The first layer that an edit may change; those below make the prefix. Without sites all are above it."""
    return min((min(group.layers) for group in sites), default=0)


def embed(
    config: LMConfig, params: Params, tokens: Int[AnyArray, "*rows"], positions: Int[AnyArray, "*rows"]
) -> Float[Array, "*rows d"]:
    """Token embeddings, scaled, with those of learned positions."""
    x = params["embed"]["w"][tokens]
    if config.embed_scale != 1.0:
        x = x * jnp.asarray(config.embed_scale, x.dtype)
    return x + params["positions"]["w"][positions] if config.learned_positions else x


def layer_taps(sites: Sites, layer: int, deltas: Deltas | BySite | None, probes: Probes | None) -> dict[str, Tap]:
    """The taps of one layer by module path, out of the per-shape stacks, or of the same site by site."""
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
    layout: Layout | None = None,
) -> Float[Array, "*rows d"]:
    """Hidden states after the layers below `stop`, which no edit reaches: [b t d], or the layout's flat rows."""
    around = surroundings(config, positions_bt, causal_mask(segments_bt))
    tokens, positions = tokens_bt, positions_bt
    if layout is not None:
        tokens, positions = (layout.collect(one[..., None])[..., 0] for one in (tokens_bt, positions_bt))
    parts = (embed(config, params, tokens, positions),)
    for layer, (mask, rope) in zip(params["layers"][:stop], around[:stop], strict=True):
        parts, _, _ = block(config, layer, parts, mask, rope, {}, None, layout, None)
    return parts[0]


def suffix(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | None,
    x_btd: Float[Array, "b t d"],
    positions_bt: Int[AnyArray, "b t"],
    segments_bt: Int[AnyArray, "b t"],
    probes: Probes | None = None,
    capture_at_n: Int[AnyArray, " n"] | None = None,
) -> tuple[Float[Array, "b t d"], Keys]:
    """From the prefix's hidden states to the last layer's (before the final norm), with edits in place.

    With probes, also the inputs of every edit site at the captured rows, per site group.
    """
    around = surroundings(config, positions_bt, causal_mask(segments_bt))
    captured = captured_of(capture_at_n, segments_bt.size) if capture_at_n is not None else None
    found: dict[tuple[int, str], Array] = {}
    for number in range(lowest_layer(sites), config.num_layers):
        taps = layer_taps(sites, number, deltas, probes)
        (x_btd,), inputs, _ = block(
            config, params["layers"][number], (x_btd,), *around[number], taps, captured, None, None
        )
        found |= {(number, module): keys_nk for module, keys_nk in inputs.items()}
    return x_btd, _by_group(sites, found) if probes is not None else ()


def answer_states(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | BySite | None,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
    probes: Probes | None = None,
) -> tuple[Float[Array, "a d"], Keys]:
    """`suffix`, for the answers' rows alone, so that logits of all b x t tokens are never built.

    In the last layer the rows of p are needed for their keys and values only. Where none but answers' rows are probed,
    the rows of p and a go through the layers apart: none of p depends on a probe, so nothing is pulled back there.
    """
    layout, (p, a) = of_batch(batch), (batch.prompt_at_p.shape[0], batch.answer_at_a.shape[0])
    around = surroundings(config, batch.positions_bt, causal_mask(batch.segments_bt))
    parts: Parts = (prefix_md,)
    captured = None
    apart = probes is not None and batch.only_answers
    if probes is not None:
        row_n = jnp.asarray(layout.row_bt).reshape(-1).at[batch.capture_at_n].get(mode="fill", fill_value=p + a)
        captured = captured_of(jnp.where(row_n < p, a, row_n - p), a) if apart else captured_of(row_n, p + a)
    if apart:
        parts = prefix_md[:p], prefix_md[p:]
    layer = jax.checkpoint(block, static_argnums=(0, 9)) if config.remat else block
    found: dict[tuple[int, str], Array] = {}
    for number in range(lowest_layer(sites), config.num_layers):
        taps = layer_taps(sites, number, deltas, probes)
        last = number == config.num_layers - 1
        keep = a if last and (apart or probes is None or not taps) else None
        parts, inputs, _ = layer(
            config, params["layers"][number], parts, *around[number], taps, captured, layout, None, keep
        )
        if apart and not last:
            parts = jax.lax.stop_gradient(parts[0]), parts[1]  # no earlier token sees a later one's probe
        found |= {(number, module): keys_nk for module, keys_nk in inputs.items()}
    return parts[-1][-a:], _by_group(sites, found) if probes is not None else ()


def answer_logits(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | BySite | None,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
) -> Float[Array, "a V"]:
    """The logits of the answers' rows."""
    return logits(config, params, answer_states(config, sites, params, deltas, prefix_md, batch)[0])


def _by_group(sites: Sites, found: dict[tuple[int, str], Array]) -> Keys:
    return tuple(jnp.stack([found[place] for place in zip(g.layers, g.modules, strict=True)]) for g in sites)


def logits(config: LMConfig, params: Params, x: Float[Array, "*rows d"]) -> Float[Array, "*rows V"]:
    """Final norm and head; float32."""
    head_Vd, bias, how = _head(config, params)
    scores = jnp.einsum("...d,Vd->...V", norm(config, params["norm"], x), head_Vd, **how)
    return cap(scores if bias is None else scores + bias, config.logit_cap)


def logits_Va(config: LMConfig, params: Params, x_ad: Float[Array, "a d"]) -> Float[Array, "V a"]:
    """`logits` with the vocabulary first: of few rows that product, and sums over V, take a CPU a quarter less time."""
    head_Vd, bias, how = _head(config, params)
    scores = jnp.einsum("Vd,ad->Va", head_Vd, norm(config, params["norm"], x_ad), **how)
    return cap(scores if bias is None else scores + bias[:, None], config.logit_cap)


def _head(config: LMConfig, params: Params) -> tuple[Array, Array | None, dict[str, Any]]:
    """(weight, bias if any, how to multiply by it)."""
    head_Vd = params["embed" if config.tied_head else "head"]["w"]
    bias = params["head"]["b"].astype(jnp.float32) if config.head_bias else None
    return head_Vd, bias, {"precision": precision(head_Vd), "preferred_element_type": jnp.float32}
