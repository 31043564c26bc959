"""Greedy and sampled decoding with a key/value cache: one jitted program for the prompt and for all new tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.layers import KVCache
from emsedit_jax.lm.params import Params
from emsedit_jax.types import AnyArray, Deltas, Sites

_COLUMNS = 16  # prompts are padded to a multiple of this: few lengths, few compiles
ROWS = 64  # prompts of one pass


class Sampling(NamedTuple):
    """How the next token is chosen: the likeliest at temperature 0, else drawn. Static."""

    temperature: float = 0.0
    top_k: int = 0  # drawn from so many of the likeliest; 0: from all
    top_p: float = 1.0  # drawn from the fewest likeliest that have this share together


GREEDY = Sampling()


def check(sampling: Sampling) -> Sampling:
    """The same, checked. Raises InputError for settings that mean nothing."""
    if not 0 <= sampling.temperature < float("inf"):
        raise InputError(f"temperature={sampling.temperature}: must be a finite number of at least 0.")
    if not isinstance(sampling.top_k, int) or sampling.top_k < 0:
        raise InputError(f"top_k={sampling.top_k}: must be a whole number of at least 0 (0: all tokens).")
    if not 0 < sampling.top_p <= 1:
        raise InputError(f"top_p={sampling.top_p}: must be above 0 and at most 1.")
    return sampling


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
    `deltas` (with their `sites`) generate from the edited model. Raises InputError for a prompt without tokens, one
    that is too long, or tokens that the model does not have.
    """
    return generate(config, params, prompts, max_new_tokens, GREEDY, 0, sites, deltas, must_speak)


def generate(
    config: LMConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    seed: int = 0,
    sites: Sites = (),
    deltas: Deltas | None = None,
    must_speak: bool = False,
    columns: int = _COLUMNS,
) -> list[list[int]]:
    """As `greedy`, with each token chosen as `sampling` says; the draws follow from the seed and a prompt's place.

    `columns`: prompts are padded to a multiple of so many tokens, each of which is compiled for.

    Raises InputError as `greedy`, and for settings that mean nothing.
    """
    check(sampling)
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}: must be at least 1.")
    if not 0 <= seed < 2**31:
        raise InputError(f"seed={seed}: must be from 0 to {2**31 - 1}.")
    if deltas is not None and not sites:
        raise InputError("deltas are given without the sites they belong to.")
    if any(len(prompt) == 0 for prompt in prompts):
        raise InputError("cannot continue an empty prompt; give it at least one token.")
    largest = max(map(max, prompts), default=0)
    if largest >= config.vocabulary:
        known = f"the model's vocabulary ends at {config.vocabulary - 1}"
        raise InputError(f"a prompt has the token id {largest}, but {known}; it takes its own tokenizer.")
    longest = max(map(len, prompts), default=0)
    if config.learned_positions and longest + max_new_tokens > config.max_length:
        raise InputError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones are more than the {config.max_length} "
            "positions that this model has learned; shorten the prompt, or ask for fewer new tokens."
        )
    found: list[list[int]] = []
    for start in range(0, len(prompts), ROWS):
        new_bt = _batch(
            config,
            params,
            prompts[start : start + ROWS],
            max_new_tokens,
            sampling,
            seed,
            start,
            sites,
            deltas,
            must_speak,
            columns,
        )
        found += [_until_end(row.tolist(), config.eos_ids) for row in new_bt]
    return found


def _batch(
    config: LMConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    first: int,
    sites: Sites,
    deltas: Deltas | None,
    must_speak: bool,
    columns: int,
) -> np.ndarray:
    """The new tokens [b new] of prompts that go through the model together; `first` is the place of the first."""
    width = -(-max(map(len, prompts)) // columns) * columns
    tokens_bt = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens_bt, prompts, strict=True):
        row[width - len(prompt) :] = prompt  # padded on the left, so that all prompts end in the same column
    pad_b = np.array([width - len(prompt) for prompt in prompts], np.int32)
    rows_b = first + np.arange(len(prompts), dtype=np.int32)
    how = config, sites, max_new_tokens, must_speak, sampling
    return np.asarray(_decode(*how, params, deltas, tokens_bt, pad_b, rows_b, seed))


def continuations(
    config: LMConfig,
    params: Params,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    sites: Sites = (),
    deltas: Deltas | None = None,
    must_speak: bool = False,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> list[str]:
    """`generate` from text to text."""
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    new = generate(config, params, ids, max_new_tokens, sampling, seed, sites, deltas, must_speak)
    return [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in new]


def _until_end(tokens: list[int], eos_ids: tuple[int, ...]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in eos_ids), len(tokens))
    return tokens[:end]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _decode(
    config: LMConfig,
    sites: Sites,
    max_new: int,
    must_speak: bool,
    sampling: Sampling,
    params: Params,
    deltas: Deltas | None,
    tokens_bt: Int[AnyArray, "b t"],
    pad_b: Int[AnyArray, " b"],
    rows_b: Int[AnyArray, " b"],
    seed: Int[Array, ""] | int,
) -> Int[Array, "b new"]:
    b, t = tokens_bt.shape
    u = t + max_new
    tokens_bt = sharding.lay(jnp.asarray(tokens_bt), sharding.DATA, None)
    dtype = params["embed"]["w"].dtype
    empty = sharding.lay(jnp.zeros((b, u, config.g, config.e), dtype), sharding.DATA, None, sharding.MODEL, None)
    caches = tuple(KVCache(empty, empty) for _ in range(config.num_layers))
    real_bu = jnp.arange(u) >= pad_b[:, None]
    eos = jnp.asarray(config.eos_ids or (-1,))
    keys_b = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), rows_b)

    def choose(logits_bV: Array, step: Array | int) -> Array:
        return _chosen(sampling, logits_bV, jax.vmap(jax.random.fold_in, (0, None))(keys_b, step))

    causal_btu = real_bu[:, None, :] & (jnp.arange(u) <= jnp.arange(t)[:, None])
    positions_bt = jnp.maximum(jnp.arange(t) - pad_b[:, None], 0)
    logits_bV, caches = _advance(config, sites, params, deltas, tokens_bt, positions_bt, causal_btu, caches, 0)
    if must_speak and config.eos_ids:
        logits_bV = logits_bV.at[:, eos].set(-jnp.inf)
    token_b = choose(logits_bV, 0)

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
        return step + 1, choose(logits_bV, step + 1), done_b, new_bt, caches

    fill = eos[0] if config.eos_ids else 0  # rows that ended early stay ended
    new_bt = jnp.full((b, max_new), fill, jnp.int32)
    found = jax.lax.while_loop(unfinished, one_more, (0, token_b, jnp.zeros(b, bool), new_bt, caches))
    return sharding.lay(found[3], None, None)


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
    around = decoder.surroundings(config, positions_bt, mask_btu, start)
    x_btd, updated = decoder.embed(config, params, tokens_bt, positions_bt), []
    for number, (layer, cache) in enumerate(zip(params["layers"], caches, strict=True)):
        taps = decoder.layer_taps(sites, number, deltas, None) if deltas is not None else {}
        place = cache, jnp.asarray(start)
        (x_btd,), _, cache = decoder.block(config, layer, (x_btd,), *around[number], taps, None, None, place)
        updated.append(cache)
    return decoder.logits(config, params, x_btd[:, -1]), tuple(updated)


def _chosen(sampling: Sampling, logits_bV: Float[Array, "b V"], keys_b: Array) -> Int[Array, " b"]:
    """The next token of each row."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_bV, axis=-1).astype(jnp.int32)
    logits_bV = logits_bV / sampling.temperature
    if 0 < sampling.top_k < logits_bV.shape[1]:
        least_b1 = jax.lax.top_k(logits_bV, sampling.top_k)[0][:, -1:]
        logits_bV = jnp.where(logits_bV < least_b1, -jnp.inf, logits_bV)
    if sampling.top_p < 1:
        ordered_bV = jnp.sort(logits_bV, axis=-1, descending=True)
        shares_bV = jax.nn.softmax(ordered_bV, axis=-1)
        kept_bV = jnp.cumsum(shares_bV, axis=-1) - shares_bV < sampling.top_p  # those before it are too few without it
        least_b1 = jnp.min(jnp.where(kept_bV, ordered_bV, jnp.inf), axis=-1, keepdims=True)
        logits_bV = jnp.where(logits_bV < least_b1, -jnp.inf, logits_bV)
    return jax.vmap(jax.random.categorical)(keys_b, logits_bV).astype(jnp.int32)
