"""Float32 models are computed in float32 on devices that have shorter products; others as fast as their dtype goes."""

import dataclasses
import functools

import jax.numpy as jnp
import pytest

from emsedit_jax.edit import capture, step
from emsedit_jax.lm import layers, model
from emsedit_jax.meta import gradient, trajectory
from tests import jaxprs, tiny_lm
from tests.tiny_lm import CONFIG, SITES

ROPE = (CONFIG.e // 2, CONFIG.e // 2)  # the identity that angles' cosines and sines are multiplied by


def precisions(call, *args, without=None):
    """Of every product of a program, but for those with a matrix of that shape."""
    found = jaxprs.products(call, *args)
    return {str(one.params["precision"]) for one in found if one.invars[1].aval.shape != without}


@pytest.mark.parametrize(("dtype", "wanted"), [("float32", "HIGHEST"), ("bfloat16", "None")])
def test_every_pass_through_the_model(dtype, wanted):
    config = dataclasses.replace(CONFIG, dtype=dtype)
    params, deltas = tiny_lm.weights(config), step.no_edit(SITES)
    batch = tiny_lm.packed(tiny_lm.prompts([(5, 2), (7, 3)]))
    prefix_md = capture.prefix(config, SITES, params, batch)
    ones_bt = jnp.ones((1, 3), int)
    calls = {
        "prefix": (functools.partial(capture.prefix, config, SITES), (params, batch)),
        "capture": (functools.partial(capture.capture, config, SITES), (params, deltas, prefix_md, batch)),
        "learning": (
            functools.partial(gradient.add_equiv, config, SITES),
            (params, deltas, prefix_md, batch, 1.0, gradient.by_site(deltas)),
        ),
        "logits": (functools.partial(model._all_logits, config), (params, ones_bt, ones_bt)),
    }
    for name, (call, args) in calls.items():
        found = precisions(call, *args, without=ROPE)
        assert found, name
        assert all(wanted in one for one in found), (name, found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tables_of_angles_are_float32_whatever_the_model(dtype):
    config = dataclasses.replace(CONFIG, dtype=dtype)
    tables = functools.partial(layers.rope_tables, config)
    assert all("HIGHEST" in one for one in precisions(tables, jnp.ones((1, 3), int)))
    assert {one.invars[1].aval.shape for one in jaxprs.products(tables, jnp.ones((1, 3), int))} == {ROPE}


def test_networks_and_solves_are_float32_whatever_the_model():
    batch = tiny_lm.packed(tiny_lm.prompts([(5, 2), (7, 3)]))
    params, editor = tiny_lm.weights(CONFIG), tiny_lm.editor("emsedit")
    prefix_md, none = capture.prefix(CONFIG, SITES, params, batch), step.no_edit(SITES)
    trace = capture.capture(CONFIG, SITES, params, none, prefix_md, batch)
    state = trajectory.init(editor, 0)
    for way in (step.learn_shift, step.learn_shift_into):
        kind = SITES, editor.method.rule, editor.structure(0)
        shift = functools.partial(way, *kind, teach=True, shifts=True)
        found = precisions(shift, none, state.thetas[0], state.stats[0], trace)
        assert found
        assert all("HIGHEST" in one for one in found)
