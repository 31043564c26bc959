"""Edit batches of made-up prompts, cut into passes and packed as a run does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from emsedit_jax import sharding
from emsedit_jax.data.batching import KINDS, cut_passes
from emsedit_jax.data.parts import dealt, pack_parts
from emsedit_jax.data.shapes import cut_evenly, plan_shapes
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.types import LANES, Batch


class Sizes(NamedTuple):
    """What a batch is made of."""

    facts: int
    prompt: int = 16  # tokens
    answer: int = 4
    micro_batch: int = 4  # prompts
    pass_tokens: int | None = None  # of a part of a pass; None: all prompts are one pass
    score_tokens: int | None = None  # likewise, of scoring


def edit_passes(sizes: Sizes, parts: int, token_rule: str) -> list[Batch]:
    """The passes over a batch's prompts of one kind."""
    items = _prompts(sizes, sizes.facts)
    cuts = cut_passes(items, sizes.micro_batch, None if sizes.pass_tokens is None else sizes.pass_tokens * parts)
    passes = [[items[m] for m in places] for places in cuts]
    return _packed(passes, sizes.micro_batch, parts, token_rule, sharding.row_lanes())


def score_passes(sizes: Sizes, parts: int) -> list[Batch]:
    """The passes that score a batch: its prompts of all kinds together."""
    items = _prompts(sizes, len(KINDS) * sizes.facts)
    lengths = [len(item.tokens) for item in items]
    cuts = cut_evenly(lengths, sum(lengths) if sizes.score_tokens is None else sizes.score_tokens * parts)
    return _packed([[items[m] for m in places] for places in cuts], len(items), parts, "ans", LANES)


def largest(batches: Sequence[Batch]) -> Batch:
    """The pass with the most room: there are two shapes at most."""
    return max(batches, key=lambda batch: (batch.tokens_bt.size, batch.answer_at_a.size))


def in_one_rectangle(batch: Batch) -> Batch:
    """The batch with its indices counted over all parts, to see what is no padding."""
    each, room = batch.answer_at_a.shape[0] // batch.parts, batch.tokens_bt.size // batch.parts
    first_a = np.repeat(np.arange(batch.parts), each) * room
    used_a = batch.answer_at_a < room
    return dataclasses.replace(batch, answer_at_a=np.where(used_a, batch.answer_at_a + first_a, batch.tokens_bt.size))


def _prompts(sizes: Sizes, count: int) -> list[TokenItem]:
    """So many; their lengths spread around the mean by a third."""
    rng = np.random.default_rng(0)
    items = []
    for _ in range(count):
        asked, answered = (max(1, round(mean * rng.uniform(2 / 3, 4 / 3))) for mean in (sizes.prompt, sizes.answer))
        items.append(TokenItem((1,) * (asked + answered - 1), (1,) * answered, asked))
    return items


def _packed(
    passes: Sequence[Sequence[TokenItem]], micro_batch: int, parts: int, token_rule: str, lanes: int
) -> list[Batch]:
    shapes = plan_shapes(dealt(passes, parts), token_rule, lanes)
    return [pack_parts(items, micro_batch, token_rule, shapes, parts) for items in passes]
