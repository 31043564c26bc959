"""Prompts -> one packed `Batch`: several prompts to a row, kept apart by segment ids, and one shape for a whole run.

The published program sorts the prompts of a batch by length (longest first), cuts them into micro-batches and averages
the loss inside each. Here a batch is one packed pass; the micro-batches live on as row weights and row order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from emsedit_jax.data.tokens import TokenItem, captured_positions, check_token_rule
from emsedit_jax.errors import InputError
from emsedit_jax.types import NO_LABEL, Batch

_LANES = 8  # t, a, n and p are multiples of this: few shapes, and whole vector registers
MOST_WASTE = 0.15  # share of padding in the work, from which two shapes are better than one
FEW = 8  # passes for which another shape's programs are not worth compiling
_ROOMY = 64  # columns of a roomy shape, where no prompt is longer
_WIDEST = 128  # wider rows are only taken for a longer prompt: attention is quadratic in t


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


def waste(batch: Batch) -> float:
    """The share of the rows that linear maps run on which is padding."""
    used = np.count_nonzero(np.asarray(batch.segments_bt))
    return 1 - used / (batch.prompt_at_p.shape[0] + batch.answer_at_a.shape[0])


def padding(passes: Sequence[tuple[int, PackShape]]) -> tuple[float, int]:
    """(padding's share of the rows that linear maps run on, number of shapes) of passes of so many tokens."""
    room = sum((shape.b * shape.t if shape.p is None else shape.p) + shape.a for _, shape in passes)
    return 1 - sum(tokens for tokens, _ in passes) / max(room, 1), len({shape for _, shape in passes})


def plan_shape(batches: Sequence[Sequence[TokenItem]], token_rule: str) -> PackShape:
    """One shape that every batch of a kind fits, so that its programs compile once.

    t is a multiple of 8, at least the longest prompt and at most 128 (or the longest prompt). Linear maps run on
    p + a rows, which b and t leave alone; they are chosen for attention, b * t * t, and what is done at every place.

    Raises: InputError for an unknown token rule.
    """
    check_token_rule(token_rule)
    lengths = [sorted((len(item.tokens) for item in items), reverse=True) for items in batches]
    narrowest = _up(max((row[0] for row in lengths if row), default=1))
    best = (math.inf, 0, 0)  # cost, t, b
    for t in range(narrowest, max(narrowest, _WIDEST) + 1, _LANES):
        at_least = max((-(-sum(row) // t) for row in lengths), default=1)
        if at_least * _cost(t) < best[0]:  # otherwise even a perfect fit would not be better
            b = max([1, *(first_fit(row, t).rows for row in lengths)])
            best = min(best, (b * _cost(t), t, b))
    _, t, b = best
    total, a, n = np.max([_rows(items, token_rule) for items in batches] or [(0, 0, 0)], axis=0).tolist()
    p, a = _room(total, a)
    return PackShape(b, t, a, _up(n), p)


def plan_shapes(batches: Sequence[Sequence[TokenItem]], token_rule: str) -> tuple[PackShape, ...]:
    """One shape that every batch fits, or where that would be too much padding, a smaller one before it.

    Raises: InputError for an unknown token rule.
    """
    whole = plan_shape(batches, token_rule)
    sizes = [_rows(items, token_rule)[:2] for items in batches]
    order = sorted(range(len(batches)), key=lambda m: sum(sizes[m]))
    count, each = len(batches), _work(whole.p or 0, whole.a)
    least = count * each  # work in all
    if count < FEW or 1 - sum(map(sum, sizes)) / max(least, 1) <= MOST_WASTE:
        return (whole,)
    total = a = split = 0
    for place, m in enumerate(order[:-1]):
        total, a = max(total, sizes[m][0]), max(a, sizes[m][1])
        work = (place + 1) * _work(*_room(total, a)) + (count - place - 1) * each
        if work < least:
            least, split = work, place + 1
    return (plan_shape([batches[m] for m in order[:split]], token_rule), whole) if split else (whole,)


def roomy_shape(batches: Sequence[Sequence[TokenItem]], token_rule: str) -> PackShape:
    """One shape that every batch fits, with each size from a few: batches of like size share one, and its programs.

    Raises: InputError for an unknown token rule.
    """
    _, _, a, n, p = plan_shape(batches, token_rule)
    lengths = [sorted((len(item.tokens) for item in items), reverse=True) for items in batches]
    t = max(_ROOMY, _up(max((row[0] for row in lengths if row), default=1)))
    t, a, n, p = (_LANES * _few(size // _LANES) for size in (t, a, n, p or 0))
    return PackShape(_few(max([1, *(first_fit(row, t).rows for row in lengths)])), t, a, n, p)


def _few(size: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not smaller."""
    power = 1 << max(size - 1, 0).bit_length()
    return power // 4 * 3 if power >= 4 and size <= power // 4 * 3 else power


def fits(items: Sequence[TokenItem], shape: PackShape, token_rule: str) -> bool:
    """Whether the prompts can be packed in this shape."""
    total, a, n = _rows(items, token_rule)
    has_room = shape.p is None or total <= shape.p + shape.a
    lengths = sorted((len(item.tokens) for item in items), reverse=True)
    within = has_room and a <= shape.a and n <= shape.n and max(lengths, default=0) <= shape.t
    return within and first_fit(lengths, shape.t).rows <= shape.b


def _rows(items: Sequence[TokenItem], token_rule: str) -> tuple[int, int, int]:
    """(tokens, answer rows, captured rows) of the prompts."""
    return (
        sum(len(item.tokens) for item in items),
        sum(len(item.labels) for item in items),
        sum(len(captured_positions(item, token_rule)) for item in items),
    )


def _room(tokens: int, a: int) -> tuple[int, int]:
    """(p, a) for so many tokens at most, and at most so many answer rows of them."""
    a = _up(a)
    return max(_up(tokens) - a, _LANES), a


def _work(p: int, a: int) -> int:
    """Of so many rows: an answer's counts double, for it goes into the vocabulary, and back where it is captured."""
    return p + 2 * a


def cut_evenly(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Places of the prompts of each pass, in order: as few passes of at most `max_tokens` as there can be, all alike.

    A longer prompt is a pass of its own.

    >>> cut_evenly([5, 5, 5, 5, 5, 5], max_tokens=25)
    [[0, 1, 2], [3, 4, 5]]
    """
    count = len(_filled_up(lengths, max_tokens))
    low, high = max(lengths, default=0), max_tokens
    if low > high:
        return _filled_up(lengths, max_tokens)
    while low < high:  # the least that does with as many passes
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled_up(lengths, middle)) <= count else (middle + 1, high)
    return _filled_up(lengths, low)


def _filled_up(lengths: Sequence[int], most: int) -> list[list[int]]:
    passes: list[list[int]] = []
    held = most
    for m, length in enumerate(lengths):
        if held + length > most:
            passes.append([])
            held = 0
        passes[-1].append(m)
        held += length
    return passes


def _cost(t: int) -> int:
    """Of a row of t places: attention's share, and what is done at every place, as of some 64 more it sees."""
    return t * (t + 64)


def _up(size: int) -> int:
    return max(_LANES, -(-size // _LANES) * _LANES)
