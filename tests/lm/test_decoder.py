"""Packing, splitting and editing are exact: the same logits, however the same prompts lie."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.packing import PackShape
from emsedit_jax.edit import sites
from emsedit_jax.lm import decoder
from emsedit_jax.lm.layout import of_batch
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 2), (4, 3), (8, 2)])  # 6 or 9 tokens each
GATE = "model.layers.{}.mlp.gate_proj"


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@functools.partial(jax.jit, static_argnums=(0, 1))
def edited(config, sites, params, deltas, batch):
    """Logits at the answer rows."""
    where = (batch.positions_bt, batch.segments_bt)
    stop, layout = decoder.lowest_layer(sites), of_batch(batch)
    x_md = decoder.prefix(config, params, stop, batch.tokens_bt, *where, layout)
    return decoder.answer_logits(config, sites, params, deltas, x_md, batch)


def unedited(config, params, batch):
    return edited(config, SITES, params, None, batch)


def random_states(b, t):
    return jnp.asarray(np.random.default_rng(0).normal(size=(b, t, CONFIG.d)), jnp.float32)


def by_prompt(logits_aV, batch):
    """Prompt -> its answer rows' logits, left to right."""
    return {item: np.asarray(logits_aV)[batch.item_a == item] for item in range(batch.item_a.max() + 1)}


def test_packed_prompts_are_computed_as_if_each_were_alone(params):
    batch = tiny_lm.packed(ITEMS)
    assert np.max(batch.segments_bt) >= 2
    together = by_prompt(unedited(CONFIG, params, batch), batch)
    for number, item in enumerate(ITEMS):
        alone = tiny_lm.packed([item], PackShape(1, len(item.tokens), 3, 3))
        logits_aV = unedited(CONFIG, params, alone)[: len(item.labels)]
        assert np.std(logits_aV) > 0.3
        np.testing.assert_allclose(together[number], logits_aV, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [PackShape(3, 32, 16, 16), PackShape(5, 9, 24, 32)])
def test_padding_and_bucket_sizes_change_nothing(params, shape):
    one, other = tiny_lm.packed(ITEMS), tiny_lm.packed(ITEMS, shape)
    first, second = (by_prompt(unedited(CONFIG, params, batch), batch) for batch in (one, other))
    for item in range(len(ITEMS)):
        np.testing.assert_allclose(first[item], second[item], rtol=1e-5, atol=1e-5)


def test_a_token_sees_none_that_comes_later(params):
    last = ITEMS[0]._replace(tokens=(*ITEMS[0].tokens[:-1], (ITEMS[0].tokens[-1] + 1) % CONFIG.vocabulary))
    first_rows = [
        by_prompt(unedited(CONFIG, params, batch), batch)[0]
        for batch in (tiny_lm.packed(ITEMS), tiny_lm.packed([last, *ITEMS[1:]]))
    ]
    np.testing.assert_allclose(first_rows[0][0], first_rows[1][0], atol=1e-6)
    assert np.abs(first_rows[0][1] - first_rows[1][1]).max() > 0.1


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_prefix_and_suffix_make_the_whole_model(params, stop):
    batch = tiny_lm.packed(ITEMS)
    where = (batch.positions_bt, batch.segments_bt)
    below = decoder.prefix(CONFIG, params, stop, batch.tokens_bt, *where)
    whole = decoder.prefix(CONFIG, params, CONFIG.num_layers, batch.tokens_bt, *where)
    lowest = sites.resolve(CONFIG, [GATE.format(stop)])
    assert decoder.lowest_layer(lowest) == stop
    x_btd, keys = decoder.suffix(CONFIG, lowest, params, None, below, *where)
    np.testing.assert_allclose(x_btd, whole, atol=1e-6)
    assert keys == ()
    assert np.abs(x_btd - below).max() > 0.1


def test_the_prefix_ends_below_the_lowest_site_of_any_shape():
    many = sites.resolve(CONFIG, [GATE.format(2), "model.layers.1.mlp.down_proj"])
    assert decoder.lowest_layer(many) == 1


def test_a_tied_head_reads_the_embedding(params):
    tied = dataclasses.replace(CONFIG, tied_head=True)
    x_btd = random_states(1, 2)
    logits = decoder.logits(tied, params, x_btd)
    headed = params | {"head": params["embed"]}
    np.testing.assert_array_equal(logits, decoder.logits(CONFIG, headed, x_btd))


# ---- edits ----


def test_deltas_of_zero_change_nothing(params):
    batch = tiny_lm.packed(ITEMS)
    zero = jax.tree.map(jnp.zeros_like, tiny_lm.random_deltas())
    np.testing.assert_allclose(
        edited(CONFIG, SITES, params, zero, batch), unedited(CONFIG, params, batch), rtol=0, atol=1e-6
    )


def test_deltas_are_as_good_as_changed_weights(params):
    batch, deltas = tiny_lm.packed(ITEMS), tiny_lm.random_deltas()
    layers = [dict(layer, mlp=dict(layer["mlp"])) for layer in params["layers"]]
    for group, delta_skv in zip(SITES, deltas, strict=True):
        for s, (layer, module) in enumerate(zip(group.layers, group.modules, strict=True)):
            name = module.removeprefix("mlp.")
            layers[layer]["mlp"][name] = {"w": layers[layer]["mlp"][name]["w"] + delta_skv[s]}
    changed = unedited(CONFIG, params | {"layers": tuple(layers)}, batch)
    np.testing.assert_allclose(edited(CONFIG, SITES, params, deltas, batch), changed, atol=1e-5)
    assert np.abs(changed - unedited(CONFIG, params, batch)).max() > 0.1


def test_a_delta_far_below_the_resolution_of_bf16_weights_still_changes_the_logits():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params, batch = tiny_lm.weights(config), tiny_lm.packed(ITEMS)
    gate = sites.resolve(config, [GATE.format(2)])
    weight_kv = jnp.where(jnp.arange(8)[:, None] % 2 == 0, 1.0, -1.0) * jnp.ones((8, 12), jnp.bfloat16)
    params["layers"][2]["mlp"]["gate"]["w"] = weight_kv.astype(jnp.bfloat16)  # neighbours are 1/256 or more apart
    deltas = (jnp.full((1, 8, 12), 1e-3),)
    assert jnp.array_equal((weight_kv + deltas[0][0]).astype(jnp.bfloat16), weight_kv)
    before, after = (edited(config, gate, params, d, batch) for d in (jax.tree.map(jnp.zeros_like, deltas), deltas))
    changed_a = np.abs(after - before).max(axis=1)[batch.item_a >= 0] > 0
    assert changed_a.mean() > 0.25


@pytest.mark.parametrize("changes", [{}, {"head_bias": True}, {"logit_cap": 0.5}, {"tied_head": True}])
def test_logits_with_the_vocabulary_first_are_the_same(changes):
    config = dataclasses.replace(CONFIG, **changes)
    params = tiny_lm.worn(tiny_lm.weights(config), scale=0.3)
    x_ad = random_states(1, 5)[0]
    expected = decoder.logits(config, params, x_ad)
    np.testing.assert_allclose(decoder.logits_Va(config, params, x_ad), expected.T, rtol=1e-6, atol=1e-6)
