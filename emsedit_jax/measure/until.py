"""What a model says up to a stop, in pieces that are looked at in between, so that short answers cost little."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from emsedit_jax.lm import generate
from emsedit_jax.lm.generate import GREEDY, ROWS, Sampling
from emsedit_jax.measure.edited import Edited

PIECE = 32  # new tokens before the first look for a stop, twice as many before the next one, and so on
COLUMNS = 128  # prompts are padded to a multiple of this: few programs to compile
CACHE_TOKENS = 2**14  # of all prompts that go through the model together, with what is said behind them


class Stops(NamedTuple):
    """What ends a text; it is not part of it."""

    texts: tuple[str, ...]
    tokens: frozenset[int]  # those that are a special token, which no decoded text holds


def stops_of(tokenizer: Any, until: Sequence[str]) -> Stops:
    """Stops as a tokenizer has them."""
    special = {tokenizer.added_tokens_encoder.get(one) for one in until} & set(tokenizer.all_special_ids)
    return Stops(tuple(one for one in until if one), frozenset(special))


def said_until(
    model: Edited,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    until: Sequence[str],
    limit: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    done: Callable[[int], object] = lambda count: None,
) -> list[str]:
    """How the model goes on after each prompt (token ids): up to a stop, an end-of-text token, or `limit` new tokens.

    Prompts of like length go through the model together. `done` is told how many are.

    Raises InputError as `generate.generate`.
    """
    order = sorted(range(len(prompts)), key=lambda m: -len(prompts[m]))
    found, stops = [""] * len(prompts), stops_of(tokenizer, until)
    while order:
        fitting = max(CACHE_TOKENS // (len(prompts[order[0]]) + limit), 1)
        count = min(ROWS, 1 << fitting.bit_length() - 1)  # a power of two: few programs again
        chosen, order = order[:count], order[count:]
        texts = _said(model, tokenizer, [prompts[m] for m in chosen], stops, limit, sampling, seed)
        for m, text in zip(chosen, texts, strict=True):
            found[m] = text
        seed += 1  # draws follow from it and from a prompt's place in its pass
        done(len(chosen))
    return found


def _said(
    model: Edited,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    limit: int,
    sampling: Sampling,
    seed: int,
) -> list[str]:
    """The same of prompts that fit the model together. What is drawn is drawn in one piece."""
    said: list[list[int]] = [[] for _ in prompts]
    going, made, size = list(range(len(prompts))), 0, PIECE if sampling == GREEDY else limit
    while going and made < limit:
        asked = [[*prompts[m], *said[m]] for m in going]
        size = min(size, _up(limit - made))
        if model.config.learned_positions:
            size = min(size, model.config.max_length - max(map(len, asked)))
        filled = asked + asked[:1] * (_up(len(asked)) - len(asked))
        edits = (model.sites, model.deltas) if model.sites else ((), None)
        new = generate.generate(model.config, model.params, filled, size, sampling, seed, *edits, columns=COLUMNS)
        for m, tokens in zip(going, new, strict=False):
            said[m] += tokens
        going = [
            m
            for m, tokens in zip(going, new, strict=False)
            if len(tokens) == size and not _cut(tokenizer, said[m], stops)[1]
        ]
        made, size = made + size, 2 * size
    return [_cut(tokenizer, tokens[:limit], stops)[0] for tokens in said]


def _up(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _cut(tokenizer: Any, tokens: Sequence[int], stops: Stops) -> tuple[str, bool]:
    """(text in front of the first stop, whether there is one)."""
    kept = list(itertools.takewhile(lambda token: token not in stops.tokens, tokens))
    text = whole = tokenizer.decode(kept, skip_special_tokens=True)
    for stop in stops.texts:
        text = text.split(stop)[0]
    return text, len(kept) < len(tokens) or text != whole
