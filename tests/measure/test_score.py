import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.data.packing import pack
from emsedit_jax.data.scoring import plan_scoring
from emsedit_jax.data.shapes import plan_shape
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import decoder
from emsedit_jax.lm.generate import greedy
from emsedit_jax.measure import score
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.prefixes import PrefixStore

PROMPTS = {  # kind -> prompts of the one batch, of many lengths
    "edit": [(1, 20, 30), (1, 7, 8, 9, 10, 11, 12, 13), (1, 300)],
    "equiv": [(1, 40, 50, 60, 70), (1, 41), (1, 42, 43)],
    "unrel": [(1, 90, 91, 92), (1, 93, 94)],
}
COUNTS = {"edit": [1, 4, 3], "equiv": [2, 4, 1], "unrel": [4, 3]}  # tokens of its answer
WRONG = {"edit": [False, True, False], "equiv": [True, False, True], "unrel": [False, True]}  # its last token
EXPECTED = {"ES": [1, 3 / 4, 1], "GS": [1 / 2, 1, 0], "LS": [1, 2 / 3]}


@pytest.fixture(scope="module")
def edited(sites):
    keys = jax.random.split(jax.random.key(3), len(sites))
    return tuple(0.5 * jax.random.normal(key, zero.shape) for key, zero in zip(keys, no_edit(sites), strict=True))


def answers(lm, sites, deltas):
    """Plan of a batch whose answers are what the model itself goes on with, but for the last token where `WRONG`."""
    items = {}
    for kind, prompts in PROMPTS.items():
        said = greedy(lm.config, lm.params, prompts, 4, sites, deltas)
        items[kind] = []
        for prompt, tokens, wrong, count in zip(prompts, said, WRONG[kind], COUNTS[kind], strict=True):
            labels = [*tokens[:count]]
            assert len(labels) == count
            if wrong:
                labels[-1] = (labels[-1] + 1) % lm.config.vocabulary
            items[kind].append(TokenItem((*prompt, *labels[:-1]), tuple(labels), len(prompt)))
    shapes = {kind: (plan_shape([found], "ans"),) for kind, found in items.items()}
    return EditPlan(np.zeros((1, 3), np.int32), shapes, 1, "ans", [[]], {kind: [items[kind]] for kind in KINDS})


@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
@pytest.mark.parametrize("with_edits", [False, True])
def test_scores_are_the_shares_of_what_the_model_says(lm, sites, edited, with_edits, batch_tokens):
    deltas = edited if with_edits else no_edit(sites)
    plan = plan_scoring(answers(lm, sites, deltas), batch_tokens)
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    for _ in range(2):  # the second time from kept prefixes
        (found,) = score.score_edits(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, [0])
        assert {name: values.tolist() for name, values in found.items()} == EXPECTED
    assert prefixes.hits == prefixes.misses == len(plan.cuts[0])


def test_edits_change_what_is_right(lm, sites, edited):
    plan = plan_scoring(answers(lm, sites, no_edit(sites)), 4096)
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    (found,) = score.score_edits(Edited(lm.config, sites, lm.params, edited, prefixes), plan, [0])
    assert {name: values.tolist() for name, values in found.items()} != EXPECTED


# ---------------------------------------------------------------------------------------------- comparisons


def compared(*kinds):
    """Plan of one batch, in micro-batches of two, whose answers have others to beat; only of the kinds named."""
    rng = np.random.default_rng(5)

    def item(prompt, kind):
        labels, versus = (tuple(rng.integers(3, 300, size).tolist()) for size in rng.integers(1, 7, 2))
        versus = (labels[0], *versus[1:])  # the first label cannot beat itself
        return TokenItem((*prompt, *labels[:-1]), labels, len(prompt), versus if kind in kinds else ())

    items = {kind: [[item(prompt, kind) for prompt in prompts]] for kind, prompts in PROMPTS.items()}
    shapes = {kind: (plan_shape(found, "ans"),) for kind, found in items.items()}
    return EditPlan(np.zeros((1, 3), np.int32), shapes, 2, "ans", [[]], items)


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits(config, sites, params, deltas, tokens_bt):
    """Logits of one prompt, padded on the right."""
    positions_bt, ones_bt = jnp.arange(tokens_bt.shape[1])[None], jnp.ones_like(tokens_bt)
    x_btd = decoder.prefix(config, params, decoder.lowest_layer(sites), tokens_bt, positions_bt, ones_bt)
    x_btd, _ = decoder.suffix(config, sites, params, deltas, x_btd, positions_bt, ones_bt)
    return decoder.logits(config, params, x_btd)[0]


def alone(lm, sites, deltas, item):
    """A prompt's share, from its logits without any packing and one label at a time."""
    tokens_bt = np.pad(item.tokens, (0, 16 - len(item.tokens)))[None]
    logits_tV = np.asarray(logits(lm.config, sites, lm.params, deltas, tokens_bt))
    logits_mV = logits_tV[item.answer_start : len(item.tokens)]
    if not item.versus:
        return np.mean([np.argmax(row) == label for row, label in zip(logits_mV, item.labels, strict=True)])
    pairs = zip(logits_mV, item.labels, item.versus, strict=True)
    return np.mean([row[label] > row[other] for row, label, other in pairs])


def found(lm, sites, deltas, plan, batch_tokens):
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    model = Edited(lm.config, sites, lm.params, deltas, prefixes)
    (found,) = score.score_edits(model, plan_scoring(plan, batch_tokens), [0])
    return found


@pytest.mark.parametrize("kinds", [("edit", "equiv", "unrel"), ("edit",)])
def test_answers_have_to_beat_others_and_the_passes_do_not_matter(lm, sites, edited, kinds):
    plan = compared(*kinds)
    contests = plan_scoring(plan, 4096).items
    expected = {
        score.NAMES[kind]: [alone(lm, sites, edited, item) for item in contests[kind][0]] for kind in score.NAMES
    }
    assert 0 < np.mean([share for name in ("ES", "GS", "LS") for share in expected[name]]) < 0.8
    for batch_tokens in (1, 20, 4096):
        scores = found(lm, sites, edited, plan, batch_tokens)
        assert {name: values.tolist() for name, values in scores.items()} == expected
    assert max(expected["ES"]) <= 5 / 6  # of six labels at most, the first has itself to beat


def test_comparing_is_one_program_and_the_others_keep_theirs(lm, sites):
    program: Any = score.score_batch
    program.clear_cache()
    plain, comparing = (plan_scoring(compared(*kinds), 20) for kinds in ((), ("edit", "unrel")))
    for plan, expected in ((plain, 1), (comparing, 2), (plain, 2)):
        assert len(plan.cuts[0]) > 2
        found(lm, sites, no_edit(sites), plan.plan, 20)
        assert program._cache_size() == expected
    assert not plain.compare
    assert {unit.batch.versus_a is None for unit in plain.units(0)} == {True}


def test_shares_come_in_the_order_the_prompts_were_given():
    items = [TokenItem((1, 2, 3), (3, 4), 2), TokenItem((1, 2, 3, 4, 5), (4, 5, 6), 3), TokenItem((1,), (9,), 1)]
    batch = pack(items, 1, "ans", plan_shape([items], "ans"))
    assert batch.item_a.tolist() == [1, 1, 1, 0, 0, 2, -1, -1]  # longest first; padding at the end
    right_a = jnp.array([True, False, True, True, False, True, True, True])
    np.testing.assert_array_equal(score.per_item(right_a, batch), [1 / 2, 2 / 3, 1])
    np.testing.assert_array_equal(score.per_item(~right_a, batch), [1 / 2, 1 / 3, 0])


def test_means_are_over_prompts_not_over_batches():
    batches = [
        {"ES": np.array([1.0, 0.0, 0.5]), "GS": np.array([1.0]), "LS": np.array([0.0, 0.0])},
        {"ES": np.array([0.5]), "GS": np.array([0.5, 0.0, 0.5]), "LS": np.array([0.25, 0.75])},
    ]
    assert score.means(batches) == {"ES": 50.0, "GS": 50.0, "LS": 25.0}
