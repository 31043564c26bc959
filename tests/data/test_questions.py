import copy
from pathlib import Path

import pytest
from tokenizers import processors

from emsedit_jax.data.questions import plan_items, windows
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.lm.model import load_tokenizer

MODELS = Path(__file__).parents[1] / "golden/models"


def test_every_question_is_asked_once_in_passes_of_one_shape_and_bounded_length():
    items = [TokenItem(tuple(range(length)), (1,), length) for length in (3, 9, 4, 9, 8, 2)]
    plan = plan_items(items, 12)
    assert sorted(m for places in plan.cuts for m in places) == list(range(6))
    assert [sum(len(items[m].tokens) for m in places) for places in plan.cuts] == [9, 9, 8, 9]  # longest first
    assert len(plan) == 4
    assert {batch.tokens_bt.shape for batch, _ in plan.units()} == {(plan.shape.b, plan.shape.t)}


def test_a_question_longer_than_a_pass_has_a_pass_of_its_own():
    items = [TokenItem(tuple(range(20)), (1,), 20), TokenItem((1, 2), (1,), 2)]
    assert plan_items(items, 12).cuts == [[0], [1]]


def test_no_questions_take_no_passes():
    plan = plan_items([], 12)
    assert len(plan) == 0
    assert list(plan.units()) == []


@pytest.fixture(scope="module")
def bare(letters):
    """The letters without a token in front, as GPT-2 has it."""
    tokenizer = copy.deepcopy(letters)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A")
    return tokenizer


def test_windows_predict_every_token_but_their_first(bare):
    first, second = windows("abcde fg", bare, 3)
    assert (first.tokens, first.labels, first.answer_start) == ((1, 2), (2, 3), 0)
    assert (second.tokens, second.labels) == ((4, 5), (5, 6))  # the seventh letter fills no window
    (whole,) = windows("ab", bare, 3)
    assert (whole.tokens, whole.labels) == ((1,), (2,))
    assert windows("a", bare, 3) == windows("", bare, 3) == []


def test_windows_begin_as_the_model_expects_and_then_predict_all_of_their_text(letters):
    first, second = windows("abcd e", letters, 3)
    assert first == TokenItem((0, 1), (1, 2), 1)
    assert second == TokenItem((0, 3), (3, 4), 1)
    assert windows("a", letters, 3) == [TokenItem((0,), (1,), 1)]
    assert windows("", letters, 3) == []


def test_tokens_at_the_end_of_a_text_are_no_part_of_it(letters):
    tokenizer = copy.deepcopy(letters)
    around = [("<bos>", 0), ("?", 27)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> <bos> $A ?", special_tokens=around
    )
    assert windows("abc", tokenizer, 3) == [TokenItem((0, 0), (letter,), 2) for letter in (1, 2, 3)]
    assert windows("", tokenizer, 3) == []


@pytest.mark.parametrize(("model", "front"), [("llama", "<bos>"), ("gpt2", "")])
def test_windows_of_real_vocabularies(model, front):
    tokenizer = load_tokenizer(MODELS / model)
    text = "Running text of a page that is long enough for several windows, each of them of twelve tokens."
    found = windows(text, tokenizer, 12)
    assert len(found) > 1
    for one in found:
        assert len(one.tokens) == 11
        assert len(one.tokens) == one.prompt_len + len(one.labels) - 1
        assert tokenizer.decode(one.tokens[:1]) == front or not front
    given = [one.labels if front else (*one.tokens[:1], *one.labels) for one in found]
    assert text.startswith(tokenizer.decode([token for tokens in given for token in tokens]))
