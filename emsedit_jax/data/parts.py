"""A pass in parts, one for each device that passes are spread over: every prompt in one of them, whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from emsedit_jax.data.packing import PackShape, own_weights, pack, sorted_order
from emsedit_jax.data.shapes import fits
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.types import Batch


def deal(items: Sequence[TokenItem], parts: int) -> list[list[int]]:
    """Places of the prompts of each part: the longest first, each to the part with the least work so far."""
    found: list[list[int]] = [[] for _ in range(parts)]
    work = np.zeros(parts, np.int64)
    for m in sorted_order(items).tolist():
        part = int(np.argmin(work))
        work[part] += len(items[m].tokens) + len(items[m].labels)  # an answer's row counts double
        found[part].append(m)
    return [sorted(places) for places in found]


def dealt(passes: Sequence[Sequence[TokenItem]], parts: int) -> list[list[TokenItem]]:
    """The prompts of every part of every pass: what shapes are planned for."""
    return [[items[m] for m in places] for items in passes for places in deal(items, parts)]


def fitting(shapes: Sequence[PackShape], items: Sequence[TokenItem], token_rule: str, parts: int = 1) -> PackShape:
    """The first of the shapes that all parts of these prompts fit, or the last."""
    each = dealt([items], parts)
    for shape in shapes[:-1]:
        if all(fits(one, shape, token_rule) for one in each):
            return shape
    return shapes[-1]


def measured(
    items: Sequence[TokenItem], shapes: Sequence[PackShape], token_rule: str, parts: int
) -> list[tuple[int, PackShape]]:
    """(tokens, shape) of each part of a pass."""
    shape = fitting(shapes, items, token_rule, parts)
    return [(sum(len(item.tokens) for item in one), shape) for one in dealt([items], parts)]


def pack_parts(
    items: Sequence[TokenItem],
    micro_batch_size: int,
    token_rule: str,
    shapes: Sequence[PackShape],
    parts: int,
    *,
    compare: bool = False,
    held: Sequence[TokenItem] = (),
) -> Batch:
    """`pack`, part by part in one shape, one after the other along the first axis of every array.

    What counts places in the rectangle counts in its own part's, `item_a` in all of `items`, then in `held`, prompts
    whose rows are held. Row weights are those of the whole pass, so that the sum over parts is the pass's.
    """
    weights = np.concatenate([own_weights(items, micro_batch_size), np.zeros(len(held), np.float32)])
    items = [*items, *held]
    shape = fitting(shapes, items, token_rule, parts)
    if parts == 1:
        return pack(items, micro_batch_size, token_rule, shape, compare=compare, weights=weights)
    packed = []
    for places in deal(items, parts):
        own = [items[m] for m in places]
        one = pack(own, micro_batch_size, token_rule, shape, compare=compare, weights=weights[places])
        packed.append(renumbered(one, places))
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *packed)
    return dataclasses.replace(joined, parts=parts)


def renumbered(batch: Batch, places: Sequence[int]) -> Batch:
    """The batch with `item_a` counting among the prompts that its own are the `places` of; -1 for what has none."""
    item_a = np.asarray(batch.item_a)
    table = np.full(max(len(places), item_a.max(initial=0) + 1) + 1, -1, np.int32)  # the last stands for -1
    table[: len(places)] = places
    return dataclasses.replace(batch, item_a=table[item_a])
