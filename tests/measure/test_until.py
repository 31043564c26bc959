import dataclasses

import numpy as np
import pytest

from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import generate
from emsedit_jax.lm.generate import Sampling
from emsedit_jax.measure import until
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.until import said_until
from tests.measure.test_likelihood import edited as edited

NEW = 11
PROMPTS = [[1, 20, 30], [1, 7, 8, 9, 10, 11, 12, 13], [1, 300], [1, *range(100, 117)], [1, 45]]


@pytest.fixture(scope="module", params=["plain", "edited"])
def model(request, lm, sites, edited):
    deltas = edited if request.param == "edited" else no_edit(sites)
    return Edited(lm.config, sites, lm.params, deltas, PrefixStore(lm.config, sites, lm.params, 0))


@pytest.fixture(scope="module")
def whole(model):
    """Token by token, each prompt in one go."""
    return generate.greedy(model.config, model.params, PROMPTS, NEW, model.sites, model.deltas)


@pytest.fixture(params=[1, 4, 32])
def piece(request, monkeypatch):
    monkeypatch.setattr(until, "PIECE", request.param)


def decoded(lm, tokens):
    return [lm.tokenizer.decode(one, skip_special_tokens=True) for one in tokens]


def test_pieces_make_up_what_is_said_in_one_go(lm, model, whole, piece):
    told = []
    assert said_until(model, lm.tokenizer, PROMPTS, [], NEW, done=told.append) == decoded(lm, whole)
    assert sum(told) == len(PROMPTS)


def test_a_text_ends_in_front_of_its_first_stop(lm, model, whole, piece):
    texts = decoded(lm, whole)
    middle = [text[len(text) // 2 :][:2] for text in texts]
    stops = ["never said", "", *middle[:2]]
    wanted = [min((text.partition(stop)[0] for stop in stops if stop), key=len) for text in texts]
    assert said_until(model, lm.tokenizer, PROMPTS, stops, NEW) == wanted
    assert sum(len(one) < len(text) for one, text in zip(wanted, texts, strict=True)) >= 2


def test_no_more_is_said_once_all_have_stopped(lm, model, whole, monkeypatch):
    monkeypatch.setattr(until, "PIECE", 2)
    asked, original = [], generate.generate

    def counted(config, params, prompts, *args, **kwargs):
        asked.append(len(prompts))
        return original(config, params, prompts, *args, **kwargs)

    monkeypatch.setattr(generate, "generate", counted)
    first = [lm.tokenizer.decode(tokens[:1]) for tokens in whole]
    said_until(model, lm.tokenizer, PROMPTS, [one for one in first if one], 64)
    assert asked[0] == 8  # five, and copies up to a power of two
    assert len(asked) == 1 or asked[1] < 8


def test_a_special_token_is_a_stop_though_no_text_shows_it(lm, model, monkeypatch):
    def said(config, params, prompts, size, *args, **kwargs):
        return [[40, 41, 2, 42, *[43] * size][:size] for _ in prompts]

    monkeypatch.setattr(generate, "generate", said)
    (special,) = lm.tokenizer.batch_decode([[2]])
    assert special == "<eos>"
    wanted = lm.tokenizer.decode([40, 41])
    assert said_until(model, lm.tokenizer, [[1]], [special], 6) == [wanted]
    assert said_until(model, lm.tokenizer, [[1]], [], 6) == [lm.tokenizer.decode([40, 41, 42, 43, 43])]


def test_draws_follow_the_seed_and_come_in_one_piece(lm, model, monkeypatch):
    monkeypatch.setattr(until, "PIECE", 1)
    drawn = Sampling(2.0)
    first, again = (said_until(model, lm.tokenizer, PROMPTS, [], NEW, drawn, seed=3) for _ in range(2))
    assert first == again
    assert first != said_until(model, lm.tokenizer, PROMPTS, [], NEW, drawn, seed=4)


def test_draws_of_other_passes_are_others(lm, model, monkeypatch):
    monkeypatch.setattr(until, "CACHE_TOKENS", 1)  # each prompt by itself
    found = said_until(model, lm.tokenizer, [PROMPTS[0]] * 4, [], NEW, Sampling(2.0), seed=3)
    assert len(set(found)) == 4


def test_learned_positions_are_not_left(lm, model, monkeypatch):
    sizes = []

    def said(config, params, prompts, size, *args, **kwargs):
        assert max(map(len, prompts)) + size <= config.max_length
        sizes.append(size)
        return [[40] * size for _ in prompts]

    monkeypatch.setattr(generate, "generate", said)
    config = dataclasses.replace(model.config, learned_positions=True, max_length=48)
    found = said_until(model._replace(config=config), lm.tokenizer, [[5] * 8], [], 40)
    assert found == [lm.tokenizer.decode([40] * 40)]
    assert sizes == [32, 8]


def test_few_widths_are_compiled_for(lm, model, monkeypatch):
    widths, original = set(), generate._decode

    def seen(config, sites, new, must_speak, sampling, params, deltas, tokens_bt, *rest):
        widths.add((tokens_bt.shape, new))
        return original(config, sites, new, must_speak, sampling, params, deltas, tokens_bt, *rest)

    monkeypatch.setattr(generate, "_decode", seen)
    prompts = [np.arange(5, 5 + length).tolist() for length in range(3, 90, 2)]
    said_until(model, lm.tokenizer, prompts, ["x"], 3)
    assert {shape[1] for shape, _ in widths} == {128}
    assert len(widths) == 1
