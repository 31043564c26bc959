"""The decoder: params and packed tokens to hidden states and logits, with edits and captures at chosen linear maps.

A pass is split where edits begin. `prefix` runs the layers below the lowest edited one: they never change and are never
differentiated, so one prefix serves every later pass over the same prompts. `suffix` runs the rest.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.layers import ACTIVATIONS, KVCache, Tap, attend, causal_mask, linear, rms_norm, rope_tables, rotate
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Deltas, Sites

Keys = tuple[Float[Array, "_s _n _k"], ...]


@functools.partial(jax.jit, static_argnums=0)
def block(
    config: LMConfig,
    layer: dict,
    x_btd: Float[Array, "b t d"],
    mask_btu: Bool[Array, "b t u"],
    rope: tuple[Array, Array],
    taps: dict[str, Tap],
    capture_at_n: Int[AnyArray, " n"] | None,
    cache: tuple[KVCache, Int[Array, ""]] | None,
) -> tuple[Float[Array, "b t d"], dict[str, Array], KVCache | None]:
    """One layer: (hidden states, inputs of the probed maps by module path, the cache with these tokens in it).

    Jitted by itself so that the layers of an unrolled program, which differ in weights only, are traced once.
    """
    inputs: dict[str, Array] = {}

    def apply(module: str, x: Array) -> Array:
        part, name = module.split(".")
        y, keys_nk = linear(layer[part][name], x, taps.get(module), capture_at_n)
        if keys_nk is not None:
            inputs[module] = keys_nk
        return y

    b, t, _ = x_btd.shape
    y_btd = rms_norm(layer["norm_attn"], x_btd, config.norm_eps)
    q = rotate(apply("attn.q", y_btd).reshape(b, t, config.h, config.e), rope)
    k = rotate(apply("attn.k", y_btd).reshape(b, t, config.g, config.e), rope)
    v = apply("attn.v", y_btd).reshape(b, t, config.g, config.e)
    if cache is not None:
        old, start = cache
        k = jax.lax.dynamic_update_slice_in_dim(old.k_buge, k, start, axis=1)
        v = jax.lax.dynamic_update_slice_in_dim(old.v_buge, v, start, axis=1)
    x_btd = x_btd + apply("attn.o", attend(q, k, v, mask_btu))
    y_btd = rms_norm(layer["norm_mlp"], x_btd, config.norm_eps)
    act = ACTIVATIONS[config.activation]
    x_btd = x_btd + apply("mlp.down", act(apply("mlp.gate", y_btd)) * apply("mlp.up", y_btd))
    return x_btd, inputs, None if cache is None else KVCache(k, v)


def lowest_layer(sites: Sites) -> int:
    """The first layer that an edit may change; those below make the prefix."""
    return min(min(group.layers) for group in sites)


def embed(params: Params, tokens_bt: Int[AnyArray, "b t"]) -> Float[Array, "b t d"]:
    """Token embeddings."""
    return params["embed"]["w"][tokens_bt]


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
    mask, rope = causal_mask(segments_bt), rope_tables(config, positions_bt)
    x_btd = embed(params, tokens_bt)
    for layer in params["layers"][:stop]:
        x_btd, _, _ = block(config, layer, x_btd, mask, rope, {}, None, None)
    return x_btd


def suffix(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | None,
    x_btd: Float[Array, "b t d"],
    positions_bt: Int[AnyArray, "b t"],
    segments_bt: Int[AnyArray, "b t"],
    probes: Deltas | None = None,
    capture_at_n: Int[AnyArray, " n"] | None = None,
) -> tuple[Float[Array, "b t d"], Keys]:
    """From the prefix's hidden states to the last layer's (before the final norm), with edits in place.

    With probes, also the inputs of every edit site at the captured rows, per site group.
    """
    mask, rope = causal_mask(segments_bt), rope_tables(config, positions_bt)
    found: dict[tuple[int, str], Array] = {}
    for number in range(lowest_layer(sites), config.num_layers):
        taps = layer_taps(sites, number, deltas, probes)
        x_btd, inputs, _ = block(config, params["layers"][number], x_btd, mask, rope, taps, capture_at_n, None)
        found |= {(number, module): keys_nk for module, keys_nk in inputs.items()}
    if probes is None:
        return x_btd, ()
    return x_btd, tuple(jnp.stack([found[place] for place in zip(g.layers, g.modules, strict=True)]) for g in sites)


def logits(config: LMConfig, params: Params, x: Float[Array, "*rows d"]) -> Float[Array, "*rows V"]:
    """Final norm and head; float32."""
    y = rms_norm(params["norm"], x, config.norm_eps)
    head_Vd = params["embed" if config.tied_head else "head"]["w"]
    return jnp.einsum("...d,Vd->...V", y, head_Vd, preferred_element_type=jnp.float32)


def logits_at(
    config: LMConfig, params: Params, x_btd: Float[Array, "b t d"], at_a: Int[AnyArray, " a"]
) -> Float[Array, "a V"]:
    """Logits at chosen rows of the flattened [b * t] only: b x t x vocabulary is never built."""
    x_ad = x_btd.reshape(-1, x_btd.shape[-1]).at[at_a].get(mode="fill", fill_value=0)
    return logits(config, params, x_ad)
