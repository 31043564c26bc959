import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsedit_jax.data.packing import PackShape, first_fit, pack, sorted_order
from emsedit_jax.data.parts import fitting
from emsedit_jax.data.shapes import FEW, MOST_WASTE, cut_evenly, padding, plan_shape, plan_shapes, roomy_shape
from emsedit_jax.data.tokens import TOKEN_RULES, TokenItem, captured_positions
from emsedit_jax.errors import InputError


def item(prompt, answer):
    """`item([1, 2], [3, 4])`: the prompt 1 2, the answer 3 4."""
    return TokenItem((*prompt, *answer[:-1]), tuple(answer), len(prompt))


SHORT = item([1, 2], [3])  # 2 tokens
LONG = item([4, 5, 6], [7, 8, 9])  # 5 tokens
MIDDLE = item([10, 11], [12, 13])  # 3 tokens
OTHER = item([14, 15, 16], [17])  # 3 tokens, as long as MIDDLE
ITEMS = [SHORT, MIDDLE, LONG, OTHER]  # sorted: LONG, MIDDLE, OTHER, SHORT
THIRD, QUARTER = np.float32(1) / np.float32(3), np.float32(0.25)


def waste(batch) -> float:
    """The share of the rows that linear maps run on which is padding."""
    used = np.count_nonzero(np.asarray(batch.segments_bt))
    return 1 - used / (batch.prompt_at_p.shape[0] + batch.answer_at_a.shape[0])


def unpack(batch, count):
    """The prompts of a packed batch, in the order given, from its arrays alone; each lies in one piece."""
    b, t = batch.tokens_bt.shape
    found = {}
    for row in range(b):
        for segment in range(1, batch.segments_bt[row].max() + 1):
            columns = np.flatnonzero(batch.segments_bt[row] == segment)
            assert batch.positions_bt[row, columns].tolist() == list(range(len(columns)))
            assert np.all(np.diff(columns) == 1)
            here = np.flatnonzero(np.isin(batch.answer_at_a, row * t + columns) & (batch.item_a >= 0))
            (owner,) = set(batch.item_a[here].tolist())
            first_column = int(batch.answer_at_a[here[0]]) - row * t
            assert owner not in found
            found[owner] = TokenItem(
                tokens=tuple(batch.tokens_bt[row, columns].tolist()),
                labels=tuple(batch.labels_a[here].tolist()),
                prompt_len=first_column - int(columns[0]) + 1,
            )
    return [found[m] for m in range(count)]


def test_the_longest_comes_first_and_equals_keep_their_order():
    assert sorted_order(ITEMS).tolist() == [2, 1, 3, 0]
    assert sorted_order([OTHER, MIDDLE, OTHER]).tolist() == [0, 1, 2]


def test_first_fit_fills_the_first_row_with_room():
    places = first_fit([5, 3, 3, 2, 1], 8)
    assert places.row.tolist() == [0, 0, 1, 1, 1]
    assert places.column.tolist() == [0, 5, 0, 3, 5]
    assert places.segment.tolist() == [1, 2, 1, 2, 3]
    assert places.rows == 2


def test_a_batch_written_out_by_hand():
    batch = pack(ITEMS, 2, "ans", PackShape(b=3, t=8, a=8, n=16))
    assert batch.tokens_bt.tolist() == [
        [4, 5, 6, 7, 8, 10, 11, 12],
        [14, 15, 16, 1, 2, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch.positions_bt.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 0, 1, 0, 0, 0], [0] * 8]
    assert batch.segments_bt.tolist() == [[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 0, 0, 0], [0] * 8]
    # LONG from column 2 of row 0, MIDDLE from column 6, then OTHER in row 1 at column 2 and SHORT at column 4
    assert batch.answer_at_a.tolist() == [2, 3, 4, 6, 7, 10, 12, 24]
    assert batch.prompt_at_p.tolist() == [0, 1, 5, 8, 9, 11] + [24] * 18
    assert batch.labels_a.tolist() == [7, 8, 9, 12, 13, 17, 3, -100]
    assert batch.item_a.tolist() == [2, 2, 2, 1, 1, 3, 0, -1]
    # micro-batches: LONG and MIDDLE with 5 answer rows, OTHER and SHORT with 2
    np.testing.assert_array_equal(batch.weights_a, np.array([0.2] * 5 + [0.5] * 2 + [0], np.float32))
    assert batch.capture_at_n.tolist() == [2, 3, 4, 6, 7, 10, 12] + [24] * 9
    assert batch.captured_n.tolist() == [True] * 7 + [False] * 9
    assert batch.versus_a is None
    static = ("versus_a", "only_answers", "parts")
    kinds = {name: value.dtype.name for name, value in vars(batch).items() if name not in static}
    assert kinds.pop("weights_a") == "float32"
    assert kinds.pop("captured_n") == "bool"
    assert set(kinds.values()) == {"int32"}
    assert batch.only_answers
    assert waste(batch) == 1 - 13 / (24 + 8)
    assert waste(pack(ITEMS, 2, "ans", PackShape(b=3, t=8, a=8, n=16, p=6))) == 1 - 13 / (6 + 8)


def test_what_a_label_is_compared_with_stands_beside_it():
    against = [LONG._replace(versus=(21, 22, 0)), SHORT, MIDDLE._replace(versus=(23, 24))]
    batch = pack(against, 2, "ans", PackShape(b=2, t=8, a=8, n=8), compare=True)
    assert batch.item_a.tolist() == [0, 0, 0, 2, 2, 1, -1, -1]
    assert batch.versus_a is not None
    assert batch.versus_a.tolist() == [21, 22, 0, 23, 24, -100, -100, -100]
    assert batch.versus_a.dtype == np.int32
    with pytest.raises(ValueError, match="3 labels cannot be compared with 2"):
        pack([LONG._replace(versus=(21, 22))], 2, "ans", PackShape(b=2, t=8, a=8, n=8), compare=True)


def test_a_last_micro_batch_that_is_not_full_has_its_own_weight():
    batch = pack(ITEMS, 3, "ans", plan_shape([ITEMS], "ans"))
    np.testing.assert_array_equal(batch.weights_a, np.array([1 / 6] * 6 + [1, 0], np.float32))
    batch = pack([LONG, SHORT], 1, "ans", plan_shape([[LONG, SHORT]], "ans"))
    np.testing.assert_array_equal(batch.weights_a, [THIRD, THIRD, THIRD, 1, 0, 0, 0, 0])
    batch = pack([LONG, SHORT], 9, "ans", plan_shape([[LONG, SHORT]], "ans"))
    np.testing.assert_array_equal(batch.weights_a, [QUARTER] * 4 + [0] * 4)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("all_interval", [0, 2, 4, 5, 7, 8, 10, 11]),  # MIDDLE starts at 5, SHORT at 11: their own even columns
        ("ans_interval", [2, 4, 7, 10]),  # SHORT's only answer row is its column 1
    ],
)
def test_captured_rows_follow_the_rule_and_answer_rows_do_not(rule, expected):
    batch = pack(ITEMS, 2, rule, PackShape(b=2, t=8, a=8, n=16))
    assert batch.capture_at_n.tolist() == expected + [16] * (16 - len(expected))
    assert batch.captured_n.sum() == len(expected)
    assert batch.only_answers == rule.startswith("ans")
    assert batch.answer_at_a.tolist() == [2, 3, 4, 6, 7, 10, 12, 16]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (PackShape(2, 4, 8, 8), "A prompt of 5 tokens does not fit rows of t=4"),
        (PackShape(1, 8, 8, 8), "4 prompts fill 2 rows of t=8, not 1"),
        (PackShape(2, 8, 6, 8), "7 rows do not fit a=6"),
        (PackShape(2, 8, 8, 6), "7 rows do not fit n=6"),
        (PackShape(2, 8, 8, 8, 4), "9 rows do not fit a=8"),
    ],
)
def test_prompts_that_do_not_fit_the_shape_are_refused(shape, says):
    with pytest.raises(InputError, match=says):
        pack(ITEMS, 2, "ans", shape)


def test_an_unknown_token_rule_is_refused():
    with pytest.raises(InputError, match="no token rule 'al'"):
        pack(ITEMS, 2, "al", PackShape(2, 8, 8, 8))
    with pytest.raises(InputError, match="no token rule 'al'"):
        plan_shape([ITEMS], "al")


def prompts(*lengths):
    return [item(range(length), [7]) for length in lengths]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        # one row of 16 is as good as two of 8, and the narrower is taken
        ([prompts(8, 8)], (2, 8)),
        # two rows of 16 (5 + 9, 9) = 32 against one of 24 = 24
        ([prompts(9, 9, 5)], (1, 24)),
        # the fullest batch decides about b: 5 rows of 8, nothing smaller than 40
        ([prompts(8), prompts(8, 8, 8, 8, 8), prompts(3)], (5, 8)),
        # 100 goes into rows of 104: two rows 208; 112 or 120 or 128 hold no pair either
        ([prompts(100, 60)], (2, 104)),
        # a longer prompt than 128 sets the width alone
        ([prompts(130, 70)], (2, 136)),
        ([prompts(1)], (1, 8)),
        ([[]], (1, 8)),
        ([], (1, 8)),
    ],
)
def test_the_shape_costs_attention_least_and_has_the_narrowest_rows(batches, expected):
    shape = plan_shape(batches, "ans")
    assert (shape.b, shape.t) == expected


def test_rows_are_counted_in_eights_over_the_fullest_batch():
    nine = item([1], range(9))
    assert plan_shape([ITEMS, [nine]], "ans")[2:] == (16, 16, 8)
    assert plan_shape([ITEMS, [nine]], "ans_interval")[2:] == (16, 8, 8)
    assert plan_shape([ITEMS, [nine]], "all")[2:] == (16, 16, 8)
    assert plan_shape([[SHORT]], "ans_interval")[2:] == (8, 8, 8)


def test_a_shape_has_room_for_the_most_tokens_and_not_for_the_most_of_each_sort():
    few_answers, many_answers = [item(range(30), [1])], [item(range(12), range(17))]  # 29 + 1, 11 + 17 rows
    shape = plan_shape([few_answers, many_answers], "ans")
    assert (shape.p, shape.a) == (8, 24)
    packed = pack(few_answers, 2, "ans", shape)
    assert sorted([*packed.prompt_at_p, *packed.answer_at_a]) == [*range(30), 32, 32]
    assert packed.answer_at_a[0] == 29
    assert packed.labels_a.tolist() == [1] + [-100] * 23
    assert packed.item_a.tolist() == [0] + [-1] * 23
    assert packed.weights_a.tolist() == [1] + [0] * 23


def test_a_batch_without_prompts_is_all_padding():
    batch = pack([], 4, "ans", plan_shape([[]], "ans"))
    assert waste(batch) == 1
    assert batch.item_a.tolist() == [-1] * 8
    assert not batch.weights_a.any()
    assert not batch.captured_n.any()


items_of_any_length = st.lists(
    st.builds(
        item,
        st.lists(st.integers(0, 99), min_size=1, max_size=40),
        st.lists(st.integers(0, 99), min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(items_of_any_length, min_size=1, max_size=3), st.integers(1, 6), st.sampled_from(TOKEN_RULES))
def test_unpacking_gives_the_prompts_back(batches, micro_batch_size, rule):
    shape = plan_shape(batches, rule)
    for items in batches:
        batch = pack(items, micro_batch_size, rule, shape)
        assert batch.tokens_bt.shape == (shape.b, shape.t)
        assert unpack(batch, len(items)) == items
        assert (batch.segments_bt > 0).sum() == sum(len(one.tokens) for one in items)
        rows = np.concatenate([batch.prompt_at_p, batch.answer_at_a])
        assert sorted(rows[rows < shape.b * shape.t]) == np.flatnonzero(batch.segments_bt).tolist()

        ranked = [items[m] for m in sorted(range(len(items)), key=lambda m: -len(items[m].tokens))]
        done = 0
        for start in range(0, len(ranked), micro_batch_size):
            labels = [label for one in ranked[start : start + micro_batch_size] for label in one.labels]
            here = slice(done, done + len(labels))
            assert batch.labels_a[here].tolist() == labels
            assert set(batch.weights_a[here].tolist()) == {float(np.float32(1) / np.float32(len(labels)))}
            done += len(labels)
        captured = [one.tokens[position] for one in ranked for position in captured_positions(one, rule)]
        assert batch.tokens_bt.ravel()[batch.capture_at_n[batch.captured_n]].tolist() == captured
        assert len(set(batch.capture_at_n[batch.captured_n].tolist())) == len(captured)


def sized(*counts):
    """Batches of so many prompts of nine tokens, one of them an answer row."""
    return [prompts(*[9] * count) for count in counts]


def test_batches_of_like_size_share_one_shape():
    batches = sized(*[10, 10, 9] * 4)
    assert plan_shapes(batches, "ans") == (plan_shape(batches, "ans"),)


def test_batches_that_would_be_padded_much_get_a_smaller_shape():
    batches = sized(*[3, 10, 3, 4, 10] * 2)
    small, large = plan_shapes(batches, "ans")
    assert small == plan_shape(sized(3, 3, 4), "ans")
    assert large == plan_shape(batches, "ans")
    chosen = [fitting((small, large), items, "ans") for items in batches]
    assert chosen == [small, large, small, small, large] * 2


def test_few_batches_have_one_shape_however_padded():
    assert len(plan_shapes(sized(*[1] * (FEW - 2), 50), "ans")) == len(plan_shapes([], "ans")) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(items_of_any_length, min_size=2, max_size=FEW + 2), st.sampled_from(TOKEN_RULES))
def test_whatever_is_packed_fits_its_shape_and_no_two_shapes_pad_more_than_one(batches, rule):
    shapes = plan_shapes(batches, rule)
    one = plan_shape(batches, rule)
    assert shapes[-1] == one
    chosen = [fitting(shapes, items, rule) for items in batches]
    for items, shape in zip(batches, chosen, strict=True):
        assert unpack(pack(items, 2, rule, shape), len(items)) == items
    assert sum(map(work, chosen)) <= len(batches) * work(one)
    if len(shapes) == 1 and len(batches) >= FEW:
        needed = sum(len(item.tokens) + len(item.labels) for items in batches for item in items)
        as_large = [work(plan_shape([items], "ans")) >= work(one) for items in batches]
        assert 1 - needed / (len(batches) * work(one)) <= MOST_WASTE or all(as_large)


@settings(max_examples=100, deadline=None)
@given(st.lists(items_of_any_length, min_size=1, max_size=3), st.sampled_from(TOKEN_RULES))
def test_a_roomy_shape_fits_too_and_its_sizes_are_few(batches, rule):
    tight, shape = plan_shape(batches, rule), roomy_shape(batches, rule)
    few = {size * 2**power for size in (2, 3) for power in range(12)} | {1}
    assert tight.p is not None
    assert shape.p is not None
    assert {shape.b, shape.t // 8, shape.a // 8, shape.n // 8, shape.p // 8} <= few
    assert shape.t <= max(64, 2 * tight.t)
    assert shape.p + shape.a <= 2 * (tight.p + tight.a)
    for items in batches:
        assert unpack(pack(items, 2, rule, shape), len(items)) == items


def test_batches_of_like_size_have_the_same_roomy_shape():
    assert len({roomy_shape(sized(count), "ans") for count in (9, 10, 11)}) == 1


def test_prompts_of_weight_zero_are_held():
    items = [item([1, 2], [3, 4]), item([5, 6, 7], [8]), item([9], [10, 11])]
    weights = np.array([0.5, 0.0, 0.25], np.float32)
    batch = pack(items, 2, "ans", plan_shape([items], "ans"), weights=weights)
    keys = batch.tokens_bt.ravel()[batch.capture_at_n[:5]].tolist()
    assert dict(zip(keys, batch.captured_n[:5].tolist(), strict=True)) == {
        2: True,
        3: True,
        7: False,
        9: True,
        10: True,
    }
    assert not batch.captured_n[5:].any()
    assert set(batch.capture_at_n[5:].tolist()) <= {batch.tokens_bt.size}


def work(shape):
    """That of a pass: an answer row counts double."""
    return shape.p + 2 * shape.a


def test_passes_are_as_few_as_can_be_and_alike():
    assert cut_evenly([5] * 12, 32) == [list(range(6)), list(range(6, 12))]
    assert cut_evenly([5] * 13, 32) == [list(range(5)), list(range(5, 10)), list(range(10, 13))]
    assert cut_evenly([5, 5], 10) == [[0, 1]]
    assert cut_evenly([5, 5, 1], 10) == [[0], [1, 2]]
    assert cut_evenly([1, 30, 1], 8) == [[0], [1], [2]]
    assert cut_evenly([], 8) == []


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_every_prompt_is_in_one_pass_and_only_one_too_long_is_over_the_limit(lengths, most):
    passes = cut_evenly(lengths, most)
    assert [m for places in passes for m in places] == list(range(len(lengths)))
    assert all(sum(lengths[m] for m in places) <= max(most, *lengths) for places in passes)
    for one, following in itertools.pairwise(passes):
        assert sum(lengths[m] for m in one) + sum(lengths[m] for m in following) > most


def test_padding_is_that_of_all_passes_together():
    small, large = PackShape(b=2, t=8, a=8, n=8, p=8), PackShape(b=4, t=8, a=8, n=8)
    assert padding([(8, small), (16, small), (10, large)]) == (1 - 34 / (16 + 16 + 40), 2)
    assert padding([(16, small)]) == (0, 1)
    assert padding([]) == (1, 0)
