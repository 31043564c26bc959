import jax
import jax.numpy as jnp
import pytest

from emsedit_jax.lm.identity import SAMPLES, Identity, identify
from tests import tiny_lm

PARAMS = tiny_lm.weights()
BASE = identify("a model", PARAMS)


def test_the_name_does_not_matter():
    other = identify("another name", PARAMS)
    assert other.weights == BASE.weights
    assert BASE.is_of(other.about())
    assert str(other) == f"another name (weights {BASE.weights})"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_dtype_does_not_matter(dtype):
    assert identify("", jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)).weights == BASE.weights


@pytest.mark.parametrize("place", range(len(jax.tree.leaves(PARAMS))))
def test_every_parameter_matters(place):
    leaves, tree = jax.tree.flatten(PARAMS)
    leaves[place] = leaves[place] * 1.5
    assert not BASE.is_of(identify("a model", jax.tree.unflatten(tree, leaves)).about())


def test_a_shape_matters():
    assert identify("", {"w": jnp.zeros((2, 3))}).weights != identify("", {"w": jnp.zeros((3, 2))}).weights


def test_a_large_parameter_is_looked_at_from_end_to_end_and_from_side_to_side():
    large = jnp.zeros((4 * SAMPLES, 8))
    same = identify("", {"w": large})
    for row in range(0, 4 * SAMPLES, 16):
        assert identify("", {"w": large.at[row : row + 16].set(1.0)}).weights != same.weights
    for column in range(8):
        assert identify("", {"w": large.at[:, column].set(1.0)}).weights != same.weights


def test_a_file_that_says_nothing_belongs_to_no_model():
    assert not BASE.is_of({})
    assert str(Identity.read({})) == "no model (weights unknown)"
