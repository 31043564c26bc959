"""Layers that are computed again on the way back: the same gradients out of less memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit.capture import capture, prefix
from emsedit_jax.lm import decoder
from emsedit_jax.meta.gradient import add_equiv, add_locality, by_site
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 2), (4, 3)])
REMAT = dataclasses.replace(CONFIG, remat=True)


@pytest.fixture(scope="module")
def scene():
    params, batch = tiny_lm.weights(), tiny_lm.packed(ITEMS)
    rng = np.random.default_rng(0)
    deltas = tuple(jnp.asarray(0.1 * rng.normal(size=(len(g.layers), g.k, g.v)), jnp.float32) for g in SITES)
    return params, deltas, prefix(CONFIG, SITES, params, batch), batch


def kept(config, scene):
    """Bytes that wait for the way back, weights and edits left out."""
    params, deltas, prefix_md, batch = scene
    loss = functools.partial(decoder.answer_logits, config, SITES, params)
    _, pull = jax.vjp(lambda deltas: jnp.sum(jnp.sin(loss(deltas, prefix_md, batch))), deltas)
    given = {leaf.shape for leaf in jax.tree.leaves((params, deltas))} | {group[0].shape for group in deltas}
    return sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if np.shape(leaf) not in given)


def test_less_is_kept(scene):
    assert 0 < kept(REMAT, scene) < 0.5 * kept(CONFIG, scene)


@pytest.mark.parametrize("program", [capture, add_equiv, add_locality])
def test_gradients_are_the_same(scene, program):
    params, deltas, prefix_md, batch = scene
    before = jax.tree.map(jnp.zeros_like, deltas)
    found = []
    for config in (CONFIG, REMAT):
        total = by_site(before)  # donated
        given = {
            capture: (deltas, prefix_md, batch),
            add_equiv: (deltas, prefix_md, batch, 1.0, total),
            add_locality: (before, deltas, prefix_md, batch, 1.0, total),
        }[program]
        found.append(program(config, SITES, params, *given))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), *found)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(found[1]))
