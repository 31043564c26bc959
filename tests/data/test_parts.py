import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsedit_jax.data.packing import pack
from emsedit_jax.data.parts import deal, dealt, fitting, measured, pack_parts
from emsedit_jax.data.shapes import plan_shapes
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.types import Batch


def prompts(lengths):
    """Prompts and answers of these lengths, no token twice."""
    token = iter(range(10_000))
    drawn = [([next(token) for _ in range(asked)], [next(token) for _ in range(said)]) for asked, said in lengths]
    return [TokenItem((*prompt, *answer[:-1]), tuple(answer), len(prompt)) for prompt, answer in drawn]


LENGTHS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=12)


def part(batch, number):
    """One part of the batch, as a batch of its own."""
    arrays = {
        field.name: np.split(getattr(batch, field.name), batch.parts)[number]
        for field in dataclasses.fields(Batch)
        if isinstance(getattr(batch, field.name), np.ndarray)
    }
    return dataclasses.replace(batch, **arrays, parts=1)


def rows(batch):
    """(prompt's number, its tokens up to the row, label, weight) of every answer row."""
    found = []
    tokens, segments = batch.tokens_bt.reshape(-1), batch.segments_bt.reshape(-1)
    width = batch.tokens_bt.shape[1]
    for at, label, weight, item in zip(batch.answer_at_a, batch.labels_a, batch.weights_a, batch.item_a, strict=True):
        if item >= 0:
            start = at - at % width
            own = [place for place in range(start, at + 1) if segments[place] == segments[at]]
            found.append((int(item), tuple(tokens[own].tolist()), int(label), float(weight)))
    return sorted(found)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 5), st.integers(1, 4))
def test_parts_hold_together_what_one_pass_holds(lengths, parts, micro_batch_size):
    items = prompts(lengths)
    whole = pack_parts(items, micro_batch_size, "ans", plan_shapes([items], "ans"), 1)
    batch = pack_parts(items, micro_batch_size, "ans", plan_shapes(dealt([items], parts), "ans"), parts)
    assert batch.parts == parts
    each = [part(batch, number) for number in range(parts)]
    assert sorted(row for one in each for row in rows(one)) == rows(whole)
    assert len({one.tokens_bt.shape for one in each}) == 1


def test_one_part_is_packed_as_ever():
    items = prompts([(5, 2), (3, 1), (7, 3)])
    (shape,) = shapes = plan_shapes([items], "ans")
    found, expected = pack_parts(items, 2, "ans", shapes, 1), pack(items, 2, "ans", shape)
    for field in dataclasses.fields(Batch):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


def test_the_longest_are_dealt_first_to_whom_has_least():
    items = prompts([(3, 1), (9, 1), (5, 1), (4, 1)])  # 3, 9, 5 and 4 tokens
    assert deal(items, 2) == [
        [0, 1],
        [2, 3],
    ]  # work is 10, then 6 and 5: the last one to the first
    assert deal(items, 1) == [[0, 1, 2, 3]]
    assert deal(items[:1], 3) == [[0], [], []]


def test_a_shape_has_to_fit_every_part():
    small, large = prompts([(2, 1)] * 4), prompts([(12, 2)] * 4)
    shapes = (*plan_shapes(dealt([small], 2), "ans"), *plan_shapes(dealt([large], 2), "ans"))
    assert fitting(shapes, small, "ans", 2) == shapes[0]
    assert fitting(shapes, [small[0], large[0]], "ans", 2) == shapes[1]  # one part would fit the smaller


def test_tokens_of_each_part():
    items = prompts([(3, 1), (9, 1), (5, 1), (4, 1)])
    shapes = plan_shapes(dealt([items], 2), "ans")
    assert measured(items, shapes, "ans", 2) == [(12, shapes[0]), (9, shapes[0])]


def test_rows_are_filled_up_to_so_many():
    batches = dealt([prompts([(5, 3)] * 6)], 2)  # nine captured rows in each part
    assert plan_shapes(batches, "ans")[0].n == 16
    assert [plan_shapes(batches, "ans", lanes)[0].n for lanes in (1, 4)] == [9, 12]


@pytest.mark.parametrize("parts", [1, 3])
def test_answers_to_be_beaten_come_along(parts):
    items = [item._replace(versus=(7,) * len(item.labels)) for item in prompts([(3, 1), (4, 2), (2, 2)])]
    batch = pack_parts(items, 2, "ans", plan_shapes(dealt([items], parts), "ans"), parts, compare=True)
    assert batch.versus_a is not None
    np.testing.assert_array_equal(batch.versus_a == 7, batch.item_a >= 0)
