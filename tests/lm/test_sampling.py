"""Drawing tokens: by their shares, from the likeliest alone where asked, the same ones for the same seed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from emsedit_jax.lm import generate as room
from emsedit_jax.lm.generate import ROWS, Sampling, generate, greedy
from emsedit_jax.lm.model import LM
from tests import tiny_lm
from tests.refusals import refused
from tests.tiny_lm import CONFIG

PROMPT, MANY = [3, 14, 15, 9, 2], 1280


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@pytest.fixture(scope="module")
def shares(params):
    """The model's distribution over the token after PROMPT."""
    ids = np.array([PROMPT])
    logits = np.asarray(LM(CONFIG, params, None, Path()).logits(ids, np.ones_like(ids)))[0, -1].astype(np.float64)
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def drawn(params, **how):
    """How often each token comes first after PROMPT."""
    rows = generate(CONFIG, params, [PROMPT] * MANY, 1, Sampling(**how), seed=1)
    return np.bincount([row[0] for row in rows], minlength=CONFIG.vocabulary)


def assert_drawn_by(counts, expected):
    spread = np.sqrt(MANY * expected * (1 - expected))
    assert counts.sum() == MANY
    assert not counts[expected == 0].any()
    assert (np.abs(counts - MANY * expected) <= 5 * spread + 1).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_by_their_shares(params, shares, temperature):
    warmed = shares ** (1 / temperature)
    assert_drawn_by(drawn(params, temperature=temperature), warmed / warmed.sum())


def test_top_k_draws_from_the_likeliest_alone(params, shares):
    kept = np.where(shares >= np.sort(shares)[-3], shares, 0)
    counts = drawn(params, temperature=1.0, top_k=3)
    assert_drawn_by(counts, kept / kept.sum())
    assert (counts > 0).sum() == 3


@pytest.mark.parametrize("top_p", [0.3, 0.6, 0.9])
def test_top_p_draws_from_the_fewest_that_have_the_share(params, shares, top_p):
    order = np.argsort(-shares)
    many = int(np.searchsorted(np.cumsum(shares[order]), top_p)) + 1
    kept = np.zeros_like(shares)
    kept[order[:many]] = shares[order[:many]]
    assert 0 < many < CONFIG.vocabulary
    assert_drawn_by(drawn(params, temperature=1.0, top_p=top_p), kept / kept.sum())


@pytest.mark.parametrize("how", [{"top_k": 1}, {"top_p": 1e-6}, {}])
def test_the_narrowest_draw_is_the_likeliest(params, how):
    prompts = [PROMPT, PROMPT[:2], PROMPT[1:]]
    sampling = Sampling(temperature=1.0 if how else 1e-4, **how)
    assert generate(CONFIG, params, prompts, 6, sampling) == greedy(CONFIG, params, prompts, 6)


def test_a_seed_draws_the_same_and_another_one_something_else(params):
    first, again, other = (generate(CONFIG, params, [PROMPT] * 4, 8, Sampling(1.0), seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert len({tuple(row) for row in first}) > 1  # equal prompts go on in different ways


def test_more_prompts_than_a_pass_takes(params, monkeypatch):
    prompts = [PROMPT[: 1 + number % 5] for number in range(ROWS + 3)]
    together = generate(CONFIG, params, prompts, 3, Sampling(1.0), seed=2)
    assert len(together) == ROWS + 3
    monkeypatch.setattr(room, "ROWS", 8)
    assert generate(CONFIG, params, prompts, 3, Sampling(1.0), seed=2) == together


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(params, how, named):
    with refused(named, "must be"):
        generate(CONFIG, params, [PROMPT], 1, Sampling(**how))


def test_learned_positions_are_not_overrun():
    config = dataclasses.replace(CONFIG, learned_positions=True, max_length=16)
    params = tiny_lm.weights(config)
    assert len(greedy(config, params, [PROMPT], 11)[0]) == 11
    with refused("prompt of 5 tokens and 12 new ones", "16 positions"):
        greedy(config, params, [PROMPT], 12)
    lm = LM(config, params, None, Path())
    with refused("17 columns", "16 positions"):
        lm.logits(np.ones((1, 17), np.int32), np.ones((1, 17), np.int32))
