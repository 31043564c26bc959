import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.candidates import plan_candidates
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import decoder
from emsedit_jax.measure import ask as asking
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.likelihood import likelihoods
from emsedit_jax.measure.passes import Passes
from emsedit_jax.measure.prefixes import PrefixStore

CHOICES = [  # (prompt, answers)
    ((1, 20, 30), [(5,), (6,), (5,)]),
    ((1, 7, 8, 9, 10, 11, 12, 13), [(9, 4), (9,), (9, 4, 300), (11, 12)]),
    ((1, 300), [(2, 2, 2, 2)]),
    ((1, 301), []),
    ((1, 40, 50), [(7,), (8, 9)]),
]
CANDIDATES = [
    [TokenItem((*prompt, *answer[:-1]), answer, len(prompt)) for answer in answers] for prompt, answers in CHOICES
]


@pytest.fixture(scope="module")
def edited(sites):
    keys = jax.random.split(jax.random.key(3), len(sites))
    return tuple(0.5 * jax.random.normal(key, zero.shape) for key, zero in zip(keys, no_edit(sites), strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits(config, sites, params, deltas, tokens_bt):
    """Logits of one prompt, padded on the right."""
    positions_bt, ones_bt = jnp.arange(tokens_bt.shape[1])[None], jnp.ones_like(tokens_bt)
    x_btd = decoder.prefix(config, params, decoder.lowest_layer(sites), tokens_bt, positions_bt, ones_bt)
    x_btd, _ = decoder.suffix(config, sites, params, deltas, x_btd, positions_bt, ones_bt)
    return decoder.logits(config, params, x_btd)[0]


def directly(lm, sites, deltas, prompt, answer):
    """Log-probability of an answer behind a prompt alone in a pass, in float64."""
    tokens_bt = np.pad((*prompt, *answer), (0, 16 - len(prompt) - len(answer)))[None]
    logits_tV = np.asarray(logits(lm.config, sites, lm.params, deltas, tokens_bt), np.float64)[len(prompt) - 1 :]
    logprob_tV = logits_tV - np.log(np.sum(np.exp(logits_tV), axis=-1, keepdims=True))
    return sum(row[token] for row, token in zip(logprob_tV, answer, strict=False))


@pytest.mark.parametrize("with_edits", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 20, 512])
def test_answers_are_as_likely_as_computed_one_by_one(lm, sites, edited, with_edits, max_tokens):
    deltas = edited if with_edits else no_edit(sites)
    wanted = np.full((5, 4), np.nan)
    for m, (prompt, answers) in enumerate(CHOICES):
        wanted[m, : len(answers)] = [directly(lm, sites, deltas, prompt, answer) for answer in answers]
    plan, prefixes = plan_candidates(CANDIDATES, max_tokens), PrefixStore(lm.config, sites, lm.params, 64)
    for _ in range(2):  # the second time from kept prefixes
        found = likelihoods(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "mine")
        np.testing.assert_allclose(found.logprob, wanted, rtol=2e-5)
        assert found.logprob.dtype == np.float64
        assert found.tokens.tolist() == [[1, 1, 1, 0], [2, 1, 3, 2], [4, 0, 0, 0], [0] * 4, [1, 2, 0, 0]]
        assert found.per_token[1].tolist() == (found.logprob[1] / [2, 1, 3, 2]).tolist()
    assert prefixes.hits == prefixes.misses == len(plan)


def test_edits_change_what_is_likely(lm, sites, edited):
    prefixes, plan = PrefixStore(lm.config, sites, lm.params, 64), plan_candidates(CANDIDATES, 20)
    before, after = (
        likelihoods(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "mine").logprob
        for deltas in (no_edit(sites), edited)
    )
    assert np.nanmin(np.abs(after - before)) > 1e-3


def test_one_program_serves_all_passes_and_edits(lm, sites, edited):
    plan, prefixes = plan_candidates(CANDIDATES, 9), PrefixStore(lm.config, sites, lm.params, 64)
    assert len(plan) > 1
    program: Any = asking.read_tokens  # (its counters are not in its type)
    program.clear_cache()
    begun = []
    for deltas in (no_edit(sites), edited):
        likelihoods(
            Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "mine", Passes(begun=lambda: begun.append(1))
        )
    assert program._cache_size() == 1
    assert len(begun) == 2 * len(plan)


def test_of_no_choices_nothing_is_likely(lm, sites):
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    found = likelihoods(Edited(lm.config, sites, lm.params, no_edit(sites), prefixes), plan_candidates([], 9), "mine")
    assert found.logprob.shape == found.per_token.shape == (0, 0)
