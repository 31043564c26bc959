import numpy as np
import pytest

from emsedit_jax.data.questions import Question, plan_items, plan_questions, windows
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.errors import InputError


def test_questions_are_tokenised_as_prompts_of_the_package_are(letters):
    plan = plan_questions([Question("a b", "c d")], letters, max_tokens=100, longest=None)
    assert list(plan.items) == [TokenItem((0, 1, 2, 3), (3, 4), 3)]
    ((batch, places),) = plan.units()
    assert list(places) == [0]
    used = np.asarray(batch.item_a) >= 0
    assert np.asarray(batch.labels_a)[used].tolist() == [3, 4]


def test_every_question_is_asked_once_in_passes_of_one_shape_and_bounded_length():
    items = [TokenItem(tuple(range(length)), (1,), length) for length in (3, 9, 4, 9, 8, 2)]
    plan = plan_items(items, 12)
    assert sorted(m for places in plan.cuts for m in places) == list(range(6))
    assert [sum(len(items[m].tokens) for m in places) for places in plan.cuts] == [9, 9, 12, 5]  # longest first
    assert len(plan) == 4
    assert {batch.tokens_bt.shape for batch, _ in plan.units()} == {(plan.shape.b, plan.shape.t)}


def test_a_question_longer_than_a_pass_has_a_pass_of_its_own():
    items = [TokenItem(tuple(range(20)), (1,), 20), TokenItem((1, 2), (1,), 2)]
    assert plan_items(items, 12).cuts == [[0], [1]]


def test_no_questions_take_no_passes():
    plan = plan_items([], 12)
    assert len(plan) == 0
    assert list(plan.units()) == []


def test_what_is_too_long_is_named(letters):
    with pytest.raises(InputError, match=r"own\.json row 3: prompt and answer take 4 tokens, the model takes 3"):
        plan_questions([Question("a b", "c d")], letters, max_tokens=9, longest=3, sources=["own.json row 3"])


def test_windows_predict_every_token_but_their_first(letters):
    first, second = windows("abcde fg", letters, 3)
    assert (first.tokens, first.labels, first.answer_start) == ((1, 2), (2, 3), 0)
    assert (second.tokens, second.labels) == ((4, 5), (5, 6))  # the seventh letter fills no window
    (whole,) = windows("ab", letters, 3)
    assert (whole.tokens, whole.labels) == ((1,), (2,))
    assert windows("a", letters, 3) == []
