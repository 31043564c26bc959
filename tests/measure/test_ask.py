from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.questions import plan_items
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import decoder
from emsedit_jax.measure import ask as asking
from emsedit_jax.measure.ask import ask, drift
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.prefixes import PrefixStore

PROMPTS = [(1, 20, 30), (1, 7, 8, 9, 10, 11, 12, 13), (1, 300), (1, 40, 50)]
ANSWERS = [(5, 6, 7), (9,), (11, 12), (4, 4, 4, 4)]
ITEMS = [
    TokenItem((*prompt, *answer[:-1]), answer, len(prompt)) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
]


@pytest.fixture(scope="module")
def edited(sites):
    keys = jax.random.split(jax.random.key(3), len(sites))
    return tuple(0.5 * jax.random.normal(key, zero.shape) for key, zero in zip(keys, no_edit(sites), strict=True))


def directly(lm, sites, deltas, item):
    """Log-probabilities [answer tokens, V] from one prompt alone in a pass, in float64."""
    tokens_bt = jnp.asarray([item.tokens])
    positions_bt = jnp.arange(len(item.tokens))[None]
    low = decoder.lowest_layer(sites)
    x_btd = decoder.prefix(lm.config, lm.params, low, tokens_bt, positions_bt, jnp.ones_like(tokens_bt))
    x_btd, _ = decoder.suffix(lm.config, sites, lm.params, deltas, x_btd, positions_bt, jnp.ones_like(tokens_bt))
    logits_tV = np.asarray(decoder.logits(lm.config, lm.params, x_btd)[0], np.float64)[item.answer_start :]
    return logits_tV - np.log(np.sum(np.exp(logits_tV), axis=-1, keepdims=True))


@pytest.mark.parametrize("with_edits", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 12, 512])
def test_answers_are_as_likely_as_computed_one_by_one(lm, sites, edited, with_edits, max_tokens):
    deltas = edited if with_edits else no_edit(sites)
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    plan = plan_items(ITEMS, max_tokens)
    for _ in range(2):  # the second time from kept prefixes
        found = ask(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "mine")
        assert found.tokens.tolist() == [3, 1, 2, 4]
        for m, item in enumerate(ITEMS):
            logprobs_aV = directly(lm, sites, deltas, item)
            wanted = sum(logprobs_aV[place, label] for place, label in enumerate(item.labels))
            np.testing.assert_allclose(found.logprob[m], wanted, rtol=2e-5)
    assert prefixes.hits == prefixes.misses == len(plan)


def test_edits_of_zero_drift_nowhere(lm, sites):
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    found = drift(Edited(lm.config, sites, lm.params, no_edit(sites), prefixes), plan_items(ITEMS, 12), "mine")
    assert found.same.tolist() == [1.0] * 4
    np.testing.assert_allclose(found.kl, 0, atol=1e-6)


def test_drift_is_the_divergence_from_the_unedited_model(lm, sites, edited):
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    found = drift(Edited(lm.config, sites, lm.params, edited, prefixes), plan_items(ITEMS, 12), "mine")
    for m, item in enumerate(ITEMS):
        old_aV, new_aV = (directly(lm, sites, deltas, item) for deltas in (no_edit(sites), edited))
        kl = np.mean(np.sum(np.exp(old_aV) * (old_aV - new_aV), axis=-1))
        np.testing.assert_allclose(found.kl[m], kl, rtol=1e-4, atol=1e-6)
        assert found.same[m] == np.mean(old_aV.argmax(axis=-1) == new_aV.argmax(axis=-1))
    assert found.kl.min() > 0.01
    assert found.same.min() < 1


def test_one_program_serves_all_passes_and_edits(lm, sites, edited):
    plan, prefixes = plan_items(ITEMS, 9), PrefixStore(lm.config, sites, lm.params, 64)
    assert len(plan) > 1
    program: Any = asking.read_tokens  # (its counters are not in its type)
    program.clear_cache()
    for deltas in (no_edit(sites), edited):
        ask(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "mine")
    assert program._cache_size() == 1
