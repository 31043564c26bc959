"""Prompts -> one packed `Batch`: several prompts to a row, kept apart by segment ids. `shapes` chooses their shape.

The published program sorts the prompts of a batch by length (longest first), cuts them into micro-batches and averages
the loss inside each. Here a batch is one packed pass; the micro-batches live on as row weights and row order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from emsedit_jax.data.tokens import TokenItem, captured_positions, check_token_rule
from emsedit_jax.errors import InputError
from emsedit_jax.types import NO_LABEL, Batch


class PackShape(NamedTuple):
    """The static shape of a packed `Batch`."""

    b: int  # rows
    t: int  # tokens of a row
    a: int  # answer rows, and other tokens that p has no room for
    n: int  # captured rows
    p: int | None = None  # other tokens; None: room for b * t


class Places(NamedTuple):
    """Where each prompt lies, in the order they were placed."""

    row: Int[np.ndarray, " prompts"]
    column: Int[np.ndarray, " prompts"]
    segment: Int[np.ndarray, " prompts"]  # 1, 2, ... inside a row

    @property
    def rows(self) -> int:
        """How many rows are in use."""
        return int(self.row.max(initial=-1)) + 1


def sorted_order(items: Sequence[TokenItem]) -> Int[np.ndarray, " items"]:
    """The prompts by length, longest first, equal ones as given: places in the order given.

    Cut into pieces of `micro_batch_size` these are the micro-batches.
    """
    return np.argsort([-len(item.tokens) for item in items], kind="stable").astype(np.int64)


def first_fit(lengths: Sequence[int], t: int) -> Places:
    """Places each prompt, whole, into the first row of `t` columns with room for it.

    >>> first_fit([5, 4, 3, 2], t=8)._asdict()
    {'row': array([0, 1, 0, 1]), 'column': array([0, 0, 5, 4]), 'segment': array([1, 1, 2, 2])}

    Raises: InputError if none has.
    """
    if max(lengths, default=0) > t:
        raise InputError(f"A prompt of {max(lengths)} tokens does not fit rows of t={t}; plan a wider shape.")
    free = np.full(len(lengths), t)
    held = np.zeros(len(lengths), np.int64)
    places = Places(*np.zeros((3, len(lengths)), np.int64))
    used = 0
    for m, length in enumerate(lengths):
        row = int(np.argmax(free[: used + 1] >= length))  # the row after the used ones is empty, so there is one
        used = max(used, row + 1)
        held[row] += 1
        places.row[m], places.column[m], places.segment[m] = row, t - free[row], held[row]
        free[row] -= length
    return places


def pack(
    items: Sequence[TokenItem],
    micro_batch_size: int,
    token_rule: str,
    shape: PackShape,
    *,
    compare: bool = False,
    weights: Float[np.ndarray, " items"] | None = None,
) -> Batch:
    """Packs prompts into one `Batch` of numpy arrays (int32, float32, bool).

    Prompts are sorted (`sorted_order`) and placed first-fit; answer and captured rows come prompt after prompt in
    sorted order, hence micro-batch after micro-batch, left to right. `item_a` is the place in `items`. Other tokens
    that are too many for `p` follow the answer rows: a shape need not have room for the most of both sorts.
    With `compare` the batch has `versus_a`: each item's `versus` is then empty or as long as its labels. `weights` are
    those of the prompts' rows where these are a part of something larger; the rows of a prompt with weight 0 are held:
    their keys are taken in, and nothing is to be written there.

    Raises: InputError if the prompts do not fit the shape, or for an unknown token rule.
    """
    check_token_rule(token_rule)
    weights = own_weights(items, micro_batch_size) if weights is None else weights
    order = sorted_order(items)
    ranked = [items[m] for m in order]
    places = first_fit([len(item.tokens) for item in ranked], shape.t)
    if places.rows > shape.b:
        raise InputError(
            f"{len(items)} prompts fill {places.rows} rows of t={shape.t}, not {shape.b}; plan a larger shape."
        )

    tokens_bt, positions_bt, segments_bt = np.zeros((3, shape.b, shape.t), np.int32)
    for item, row, column, segment in zip(ranked, *places, strict=True):
        here = (row, slice(column, column + len(item.tokens)))
        tokens_bt[here] = item.tokens
        positions_bt[here] = np.arange(len(item.tokens))
        segments_bt[here] = segment

    base = places.row * shape.t + places.column  # of each prompt, in the flattened [b * t]
    answers = [at + np.arange(item.answer_start, len(item.tokens)) for at, item in zip(base, ranked, strict=True)]
    others = [at + np.arange(item.answer_start) for at, item in zip(base, ranked, strict=True)]
    captured = [at + captured_positions(item, token_rule) for at, item in zip(base, ranked, strict=True)]
    counts = [len(item.labels) for item in ranked]
    nowhere = shape.b * shape.t
    p = nowhere if shape.p is None else shape.p
    within, over = _parted(others, p)
    return Batch(
        tokens_bt=tokens_bt,
        positions_bt=positions_bt,
        segments_bt=segments_bt,
        prompt_at_p=_filled("p", [within], p, nowhere, np.int32),
        answer_at_a=_filled("a", [*answers, over], shape.a, nowhere, np.int32),
        labels_a=_filled("a", [item.labels for item in ranked], shape.a, NO_LABEL, np.int32),
        weights_a=_filled("a", [np.repeat(weights[order], counts)], shape.a, 0, np.float32),
        item_a=_filled("a", [np.repeat(order, counts)], shape.a, -1, np.int32),
        capture_at_n=_filled("n", captured, shape.n, nowhere, np.int32),
        captured_n=_filled("n", [np.repeat(weights[order] > 0, [len(one) for one in captured])], shape.n, False, bool),
        versus_a=_filled("a", [_versus(item) for item in ranked], shape.a, NO_LABEL, np.int32) if compare else None,
        only_answers=token_rule.startswith("ans"),
    )


def _parted(others: Sequence[np.ndarray], p: int) -> tuple[np.ndarray, np.ndarray]:
    """(at most `p` of the prompts' tokens, those that are too many): those farthest from their prompt's beginning.

    Models load a text's first token with huge values, which are best not sent on where nobody needs them.
    """
    nothing = np.zeros(0, np.int64)
    depth = np.concatenate([nothing, *(np.arange(len(one)) for one in others)])
    flat = np.concatenate([nothing, *others])
    over = np.zeros(len(flat), bool)
    over[np.argsort(depth, kind="stable")[p:]] = True
    return flat[~over], flat[over]


def _versus(item: TokenItem) -> Sequence[int]:
    """What each label of the item is compared with."""
    versus = item.versus or (NO_LABEL,) * len(item.labels)
    if len(versus) != len(item.labels):
        raise ValueError(f"{len(item.labels)} labels cannot be compared with {len(versus)}: see scoring.contest")
    return versus


def own_weights(items: Sequence[TokenItem], micro_batch_size: int) -> Float[np.ndarray, " items"]:
    """1 / (answer rows of the prompt's micro-batch), of the rows of each prompt, in the order given."""
    order = sorted_order(items)
    counts = np.array([len(items[m].labels) for m in order], np.int64)
    starts = np.arange(0, len(counts), micro_batch_size)
    totals = np.add.reduceat(counts, starts) if len(counts) else np.zeros(0)
    weights = np.zeros(len(counts), np.float32)
    weights[order] = np.repeat(np.float32(1) / totals.astype(np.float32), micro_batch_size)[: len(counts)]
    return weights


def _filled(letter: str, parts: Sequence, size: int, fill: int, dtype: type) -> np.ndarray:
    """The parts one after the other, then `fill` up to `size`."""
    values = np.concatenate([np.zeros(0, dtype), *parts])
    if len(values) > size:
        raise InputError(f"{len(values)} rows do not fit {letter}={size}; plan a larger shape.")
    out = np.full(size, fill, dtype)
    out[: len(values)] = values
    return out
