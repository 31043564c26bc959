import dataclasses

import jax
import numpy as np
import pytest

from emsedit_jax.lm import params
from emsedit_jax.lm.params import Spec
from tests.tiny_lm import CONFIG

TIED = dataclasses.replace(CONFIG, tied_head=True)
BIASED = dataclasses.replace(CONFIG, attention_bias=True, output_bias=True, mlp_bias=True)


def test_shapes_and_axes():
    tree = params.abstract(CONFIG)
    assert len(tree["layers"]) == 3
    layer = tree["layers"][2]
    assert tree["embed"]["w"] == tree["head"]["w"] == Spec((31, 8), "float32", ("V", "d"))
    assert layer["attn"]["q"]["w"] == Spec((8, 24), "float32", ("d", "h"))
    assert layer["attn"]["v"]["w"] == Spec((8, 12), "float32", ("d", "g"))
    assert layer["attn"]["o"]["w"] == Spec((24, 8), "float32", ("h", "d"))
    assert layer["mlp"]["down"]["w"] == Spec((12, 8), "float32", ("f", "d"))
    assert layer["norm_mlp"]["w"] == Spec((8,), "float32", ("d",))


def test_biases_are_there_where_the_config_has_them():
    layer = params.abstract(BIASED)["layers"][0]
    assert {name: part["b"].shape for name, part in layer["attn"].items()} == {
        "q": (24,),
        "k": (12,),
        "v": (12,),
        "o": (8,),
    }
    assert layer["mlp"]["gate"]["b"] == Spec((12,), "float32", ("f",))
    assert "b" not in params.abstract(CONFIG)["layers"][0]["mlp"]["gate"]


def test_count():
    layer = 8 * (24 + 12 + 12) + 24 * 8 + 3 * 8 * 12 + 2 * 8
    assert params.count(CONFIG) == 3 * layer + 2 * 31 * 8 + 8
    assert params.count(TIED) == params.count(CONFIG) - 31 * 8
    assert params.count(BIASED) == params.count(CONFIG) + 3 * (24 + 12 + 12 + 8 + 12 + 12 + 8)


@pytest.mark.parametrize("config", [CONFIG, TIED, BIASED, dataclasses.replace(CONFIG, dtype="bfloat16")])
def test_random_params_are_as_described(config):
    specs = params.abstract(config)
    drawn = params.init(config)
    assert jax.tree.structure(drawn) == jax.tree.structure(specs, is_leaf=params.is_spec)
    for spec, array in zip(jax.tree.leaves(specs, is_leaf=params.is_spec), jax.tree.leaves(drawn), strict=True):
        assert (array.shape, array.dtype.name) == (spec.shape, spec.dtype)
    np.testing.assert_array_equal(drawn["layers"][1]["norm_mlp"]["w"], 1)


def test_random_params_depend_on_the_seed_alone():
    one, same, other = (params.init(CONFIG, seed, scale=0.3)["embed"]["w"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    assert np.std(one) == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize(
    ("module", "shape"), [("mlp.gate", (8, 12)), ("mlp.down", (12, 8)), ("attn.q", (8, 24)), ("attn.k", (8, 12))]
)
def test_module_spec(module, shape):
    assert params.module_spec(CONFIG, module).shape == shape
