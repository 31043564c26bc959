import dataclasses
import functools

import jax
import numpy as np
import pytest

from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import decoder
from emsedit_jax.lm.generate import continuations, greedy
from tests import tiny_lm
from tests.refusals import refused
from tests.tiny_lm import CONFIG, SITES

NEW, WIDTH = 6, 32
PROMPTS = [list(item.tokens) for item in tiny_lm.prompts([(3, 1), (17, 1), (9, 1)])]  # 17: beyond one bucket of 16


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@functools.partial(jax.jit, static_argnums=(0, 1))
def whole_forward(config, sites, params, deltas, tokens_bt, segments_bt):
    positions_bt = jax.numpy.broadcast_to(jax.numpy.arange(tokens_bt.shape[1]), tokens_bt.shape)
    x_btd = decoder.prefix(config, params, decoder.lowest_layer(sites), tokens_bt, positions_bt, segments_bt)
    x_btd, _ = decoder.suffix(config, sites, params, deltas, x_btd, positions_bt, segments_bt)
    return decoder.logits(config, params, x_btd)


def slow_greedy(params, prompts, deltas):
    """Greedy decoding without a cache: the whole sequence, padded on the right, for every token."""
    rows = [list(prompt) for prompt in prompts]
    for _ in range(NEW):
        tokens_bt, segments_bt = np.zeros((2, len(rows), WIDTH), np.int32)
        for number, row in enumerate(rows):
            tokens_bt[number, : len(row)], segments_bt[number, : len(row)] = row, 1
        logits_btV = np.asarray(whole_forward(CONFIG, SITES, params, deltas, tokens_bt, segments_bt))
        for number, row in enumerate(rows):
            row.append(int(logits_btV[number, len(row) - 1].argmax()))
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


@pytest.fixture(scope="module")
def unedited(params):
    return slow_greedy(params, PROMPTS, no_edit(SITES))


def test_the_cache_gives_what_repeated_whole_passes_give(params, unedited):
    assert greedy(CONFIG, params, PROMPTS, NEW) == unedited
    assert len({token for row in unedited for token in row}) > 3


def test_edits_are_generated_from(params, unedited):
    deltas = tiny_lm.random_deltas(scale=0.5)
    edited = greedy(CONFIG, params, PROMPTS, NEW, SITES, deltas)
    assert edited == slow_greedy(params, PROMPTS, deltas)
    assert edited != unedited
    assert greedy(CONFIG, params, PROMPTS, NEW, SITES, no_edit(SITES)) == unedited


def test_a_prompt_s_continuation_does_not_depend_on_its_neighbours(params, unedited):
    assert greedy(CONFIG, params, PROMPTS[:1], NEW) == unedited[:1]
    assert greedy(CONFIG, params, PROMPTS[::-1], NEW) == unedited[::-1]


def test_each_row_ends_before_its_first_end_of_text_token(params, unedited):
    ends = (unedited[0][2], unedited[1][3])
    expected = []
    for row in unedited:
        hits = [at for at, token in enumerate(row) if token in ends]
        expected.append(row[: hits[0]] if hits else row)
    assert greedy(dataclasses.replace(CONFIG, eos_ids=ends), params, PROMPTS, NEW) == expected
    assert expected[0] == unedited[0][: unedited[0].index(next(t for t in unedited[0] if t in ends))]


def test_all_rows_ended_at_once(params, unedited):
    ends = tuple(sorted({row[0] for row in unedited}))
    assert greedy(dataclasses.replace(CONFIG, eos_ids=ends), params, PROMPTS, NEW) == [[], [], []]


def test_who_must_speak_does_not_end_at_once(params, unedited):
    ends = dataclasses.replace(CONFIG, eos_ids=tuple({row[0] for row in unedited}))
    assert greedy(ends, params, PROMPTS, NEW) == [[], [], []]
    spoken = greedy(ends, params, PROMPTS, NEW, must_speak=True)
    assert all(row and row[0] not in ends.eos_ids for row in spoken)


def test_nothing_to_continue(params):
    assert greedy(CONFIG, params, [], NEW) == []
    with refused("empty prompt"):
        greedy(CONFIG, params, [[1], []], NEW)


def test_a_token_that_the_model_does_not_have(params):
    last = CONFIG.vocabulary - 1
    assert len(greedy(CONFIG, params, [[1, last]], NEW)) == 1
    with refused(f"the token id {last + 1}, but the model's vocabulary ends at {last}"):
        greedy(CONFIG, params, [[1], [2, last + 1, 3]], NEW)


class Letters:
    """A tokenizer for "a", "b", ...; the token 30 is special."""

    def __call__(self, text):
        return {"input_ids": [ord(letter) - ord("a") for letter in text]}

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(token + ord("a")) for token in tokens if token != 30)


def test_text_to_text(params, unedited):
    texts = ["".join(chr(token + ord("a")) for token in prompt) for prompt in PROMPTS]
    assert [Letters()(text)["input_ids"] for text in texts] == PROMPTS
    written = continuations(CONFIG, params, Letters(), texts, NEW)
    assert written == [Letters().decode(row, skip_special_tokens=True) for row in unedited]
