"""The shapes that prompts are packed in: few, so that programs compile once, and with little padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from emsedit_jax.data.packing import PackShape, first_fit
from emsedit_jax.data.tokens import TokenItem, captured_positions, check_token_rule
from emsedit_jax.types import LANES

MOST_WASTE = 0.15  # share of padding in the work, from which two shapes are better than one
FEW = 8  # passes for which another shape's programs are not worth compiling
_ROOMY = 64  # columns of a roomy shape, where no prompt is longer
_WIDEST = 128  # wider rows are only taken for a longer prompt: attention is quadratic in t


def padding(passes: Sequence[tuple[int, PackShape]]) -> tuple[float, int]:
    """(padding's share of the rows that linear maps run on, number of shapes) of passes of so many tokens."""
    room = sum((shape.b * shape.t if shape.p is None else shape.p) + shape.a for _, shape in passes)
    return 1 - sum(tokens for tokens, _ in passes) / max(room, 1), len({shape for _, shape in passes})


def plan_shape(batches: Sequence[Sequence[TokenItem]], token_rule: str, lanes: int = LANES) -> PackShape:
    """One shape that every batch of a kind fits, so that its programs compile once; n is a multiple of `lanes`.

    t is a multiple of 8, at least the longest prompt and at most 128 (or the longest prompt). Linear maps run on
    p + a rows, which b and t leave alone; they are chosen for attention, b * t * t, and what is done at every place.

    Raises: InputError for an unknown token rule.
    """
    check_token_rule(token_rule)
    lengths = [sorted((len(item.tokens) for item in items), reverse=True) for items in batches]
    narrowest = _up(max((row[0] for row in lengths if row), default=1))
    best = (math.inf, 0, 0)  # cost, t, b
    for t in range(narrowest, max(narrowest, _WIDEST) + 1, LANES):
        at_least = max((-(-sum(row) // t) for row in lengths), default=1)
        if at_least * _cost(t) < best[0]:  # otherwise even a perfect fit would not be better
            b = max([1, *(first_fit(row, t).rows for row in lengths)])
            best = min(best, (b * _cost(t), t, b))
    _, t, b = best
    total, a, n = np.max([_rows(items, token_rule) for items in batches] or [(0, 0, 0)], axis=0).tolist()
    p, a = _room(total, a)
    return PackShape(b, t, a, _up(n, lanes), p)


def plan_shapes(batches: Sequence[Sequence[TokenItem]], token_rule: str, lanes: int = LANES) -> tuple[PackShape, ...]:
    """One shape that every batch fits, or where that would be too much padding, a smaller one before it.

    Raises: InputError for an unknown token rule.
    """
    whole = plan_shape(batches, token_rule, lanes)
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
    return (plan_shape([batches[m] for m in order[:split]], token_rule, lanes), whole) if split else (whole,)


def roomy_shape(batches: Sequence[Sequence[TokenItem]], token_rule: str) -> PackShape:
    """One shape that every batch fits, with each size from a few: batches of like size share one, and its programs.

    Raises: InputError for an unknown token rule.
    """
    _, _, a, n, p = plan_shape(batches, token_rule)
    lengths = [sorted((len(item.tokens) for item in items), reverse=True) for items in batches]
    t = max(_ROOMY, _up(max((row[0] for row in lengths if row), default=1)))
    t, a, n, p = (LANES * _few(size // LANES) for size in (t, a, n, p or 0))
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
    return max(_up(tokens) - a, LANES), a


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


def _up(size: int, lanes: int = LANES) -> int:
    return max(lanes, -(-size // lanes) * lanes)
