import numpy as np
import pytest

from emsedit_jax.data.candidates import NONE, Choice, plan_candidates, plan_choices, tokenize_choices
from emsedit_jax.data.tokens import TokenItem
from tests.refusals import refused

CHOICES = [
    Choice("a b", ("c", "d", "c")),  # one token each, two of them the same
    Choice("a b c d e", ("f g", "h", "f i", "f")),  # several share a first token
    Choice("z", ("x y",)),
    Choice("q", ()),
]


@pytest.fixture
def plan(letters):
    return plan_choices(CHOICES, letters, max_tokens=8, longest=None)


def read(plan):
    """{sequence: [(prompt and labels before, token read)]} of all passes, from what the passes hold."""
    found = {}
    for batch, sequence_a, words_aw in plan.units():
        tokens, segments = np.asarray(batch.tokens_bt).ravel(), np.asarray(batch.segments_bt).ravel()
        rows, positions = np.indices(batch.tokens_bt.shape)[0].ravel(), np.asarray(batch.positions_bt).ravel()
        for at, sequence, words in zip(batch.answer_at_a, sequence_a.tolist(), words_aw.tolist(), strict=True):
            if sequence != NONE:
                mine = (rows == rows[at]) & (segments == segments[at]) & (positions <= positions[at])
                found.setdefault(sequence, []).append((tokens[mine].tolist(), words))
    return found


def test_answers_of_one_token_share_the_bare_prompt(plan):
    assert list(plan.questions.items) == [
        TokenItem((0, 1, 2), (3,), 3),
        TokenItem((0, 1, 2, 3, 4, 5, 6), (6, 7), 6),
        TokenItem((0, 1, 2, 3, 4, 5), (8,), 6),
        TokenItem((0, 1, 2, 3, 4, 5, 6), (6, 9), 6),
        TokenItem((0, 26, 24), (24, 25), 2),
    ]
    assert plan.sequence_cx.tolist() == [[0, 0, 0, NONE], [1, 2, 3, 2], [4] + [NONE] * 3, [NONE] * 4]
    assert plan.tokens_cx.tolist() == [[1, 1, 1, 0], [2, 1, 2, 1], [2, 0, 0, 0], [0, 0, 0, 0]]


def test_each_answer_is_read_token_by_token_behind_its_prompt(plan, letters):
    assert len(plan) > 1
    passes = read(plan)
    assert sorted(passes) == [0, 1, 2, 3, 4]
    for m, choice in enumerate(CHOICES):
        for n, item in enumerate(tokenize_choices([choice], letters, longest=None)[0]):
            rows = passes[plan.sequence_cx[m, n]]
            before = [list(item.tokens[: item.prompt_len + place]) for place in range(len(item.labels))]
            assert [tokens for tokens, _ in rows] == before
            assert tuple(words[plan.word_cx[m, n]] for _, words in rows) == item.labels


def test_short_prompts_lie_beside_long_ones_in_passes_of_one_shape():
    lengths = [200, 190, *[10] * 60, *[30] * 20]
    plan = plan_candidates([[TokenItem(tuple(range(length)), (1,), length)] for length in lengths], 400)
    assert sorted(m for places in plan.questions.cuts for m in places) == list(range(len(lengths)))
    assert {one.batch.tokens_bt.shape for one in plan.units()} == {(2, 200)}
    assert len(plan) == 4  # of 400 tokens each: the 1,590 fit


def test_no_choices_take_no_passes(letters):
    for choices in ([], [Choice("a", ())]):
        plan = plan_choices(choices, letters, max_tokens=8, longest=None)
        assert len(plan) == 0
        assert list(plan.units()) == []
        assert plan.tokens_cx.shape == (len(choices), 0)


def test_what_cannot_be_asked_is_named(letters):
    with refused("own.json row 3", "4 tokens, the model takes 3"):
        plan_choices([Choice("a b", ("c", "c d"))], letters, max_tokens=9, longest=3, sources=["own.json row 3"])
    with refused("choice 1", "tokenises to nothing"):
        plan_choices([Choice("a", ("b",)), Choice("a", ("b", "!"))], letters, max_tokens=9, longest=None)
