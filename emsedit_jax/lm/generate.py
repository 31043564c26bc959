"""Greedy decoding with a key/value cache: one jitted program for the prompt and the loop over new tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax.errors import InputError
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.layers import KVCache, rope_tables
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Deltas, Sites

_COLUMNS = 16  # prompts are padded to a multiple of this: few lengths, few compiles


def greedy(
    config: LMConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sites: Sites = (),
    deltas: Deltas | None = None,
    must_speak: bool = False,
) -> list[list[int]]:
    """The likeliest continuation of each prompt (token ids), token by token, ended before the first end-of-text token.

    With `must_speak` the first token is none.
    `deltas` (with their `sites`) generate from the edited model. Raises InputError for a prompt without tokens.
    """
    if not prompts:
        return []
    if deltas is not None and not sites:
        raise InputError("deltas are given without the sites they belong to.")
    if any(len(prompt) == 0 for prompt in prompts):
        raise InputError("cannot continue an empty prompt; give it at least one token.")
    width = -(-max(map(len, prompts)) // _COLUMNS) * _COLUMNS
    tokens_bt = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens_bt, prompts, strict=True):
        row[width - len(prompt) :] = prompt  # padded on the left, so that all prompts end in the same column
    pad_b = np.array([width - len(prompt) for prompt in prompts], np.int32)
    new_bt = np.asarray(_decode(config, sites, max_new_tokens, must_speak, params, deltas, tokens_bt, pad_b))
    return [_until_end(row.tolist(), config.eos_ids) for row in new_bt]


def continuations(
    config: LMConfig,
    params: Params,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    sites: Sites = (),
    deltas: Deltas | None = None,
    must_speak: bool = False,
) -> list[str]:
    """`greedy` from text to text."""
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    return [
        tokenizer.decode(new, skip_special_tokens=True)
        for new in greedy(config, params, ids, max_new_tokens, sites, deltas, must_speak)
    ]


def _until_end(tokens: list[int], eos_ids: tuple[int, ...]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in eos_ids), len(tokens))
    return tokens[:end]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _decode(
    config: LMConfig,
    sites: Sites,
    max_new: int,
    must_speak: bool,
    params: Params,
    deltas: Deltas | None,
    tokens_bt: Int[AnyArray, "b t"],
    pad_b: Int[AnyArray, " b"],
) -> Int[Array, "b new"]:
    b, t = tokens_bt.shape
    u = t + max_new
    dtype = params["embed"]["w"].dtype
    empty = jnp.zeros((b, u, config.g, config.e), dtype)
    caches = tuple(KVCache(empty, empty) for _ in range(config.num_layers))
    real_bu = jnp.arange(u) >= pad_b[:, None]
    eos = jnp.asarray(config.eos_ids or (-1,))

    causal_btu = real_bu[:, None, :] & (jnp.arange(u) <= jnp.arange(t)[:, None])
    positions_bt = jnp.maximum(jnp.arange(t) - pad_b[:, None], 0)
    logits_bV, caches = _advance(config, sites, params, deltas, tokens_bt, positions_bt, causal_btu, caches, 0)
    if must_speak and config.eos_ids:
        logits_bV = logits_bV.at[:, eos].set(-jnp.inf)
    token_b = _likeliest(logits_bV)

    def unfinished(carry):
        step, _, done_b, _, _ = carry
        return (step < max_new) & ~jnp.all(done_b)

    def one_more(carry):
        step, token_b, done_b, new_bt, caches = carry
        new_bt = new_bt.at[:, step].set(token_b)
        done_b = done_b | jnp.isin(token_b, eos)
        column = t + step
        mask_b1u = (real_bu & (jnp.arange(u) <= column))[:, None, :]
        logits_bV, caches = _advance(
            config, sites, params, deltas, token_b[:, None], column - pad_b[:, None], mask_b1u, caches, column
        )
        return step + 1, _likeliest(logits_bV), done_b, new_bt, caches

    fill = eos[0] if config.eos_ids else 0  # rows that ended early stay ended
    new_bt = jnp.full((b, max_new), fill, jnp.int32)
    return jax.lax.while_loop(unfinished, one_more, (0, token_b, jnp.zeros(b, bool), new_bt, caches))[3]


def _advance(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas | None,
    tokens_bt: Int[AnyArray, "b t"],
    positions_bt: Int[AnyArray, "b t"],
    mask_btu: Bool[Array, "b t u"],
    caches: tuple[KVCache, ...],
    start: Int[Array, ""] | int,
) -> tuple[Float[Array, "b V"], tuple[KVCache, ...]]:
    """Runs tokens in columns `start`, `start + 1`, ...; logits of the next one, and the caches with these in them."""
    rope, x_btd, updated = rope_tables(config, positions_bt), decoder.embed(params, tokens_bt), []
    for number, (layer, cache) in enumerate(zip(params["layers"], caches, strict=True)):
        taps = decoder.layer_taps(sites, number, deltas, None) if deltas is not None else {}
        x_btd, _, cache = decoder.block(config, layer, x_btd, mask_btu, rope, taps, None, (cache, jnp.asarray(start)))
        updated.append(cache)
    return decoder.logits(config, params, x_btd[:, -1]), tuple(updated)


def _likeliest(logits_bV: Float[Array, "b V"]) -> Int[Array, " b"]:
    return jnp.argmax(logits_bV, axis=-1).astype(jnp.int32)
