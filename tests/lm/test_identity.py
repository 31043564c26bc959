import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.lm import identity
from emsedit_jax.lm.identity import Identity, exact, identify
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


def test_every_number_matters_however_little_it_changes():
    draw = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(PARAMS)
    for _ in range(200):
        which = int(draw.integers(len(leaves)))
        leaf = np.array(leaves[which], ml_dtypes.bfloat16)
        leaf.view(np.uint16).flat[draw.integers(leaf.size)] ^= 1
        changed = [*leaves[:which], jnp.asarray(leaf, leaves[which].dtype), *leaves[which + 1 :]]
        assert not BASE.is_of(identify("a model", jax.tree.unflatten(tree, changed)).about())


def test_the_devices_do_not_matter():
    weights = {"w": jax.random.normal(jax.random.key(0), (64, 32))}
    with jax.set_mesh(sharding.make_mesh(2, 4)):
        placed = jax.device_put(weights, sharding.named(jax.sharding.PartitionSpec(None, "model")))
        assert identify("", placed).weights == identify("", weights).weights


def test_pieces_add_up_to_the_whole(monkeypatch):
    weights = {"w": jax.random.normal(jax.random.key(0), (7, 5, 3))}
    whole = identify("", weights)
    monkeypatch.setattr(identity, "PIECE", 30)  # two rows at a time, and one that is left
    jax.clear_caches()
    assert identify("", weights).weights == whole.weights


def test_the_order_of_numbers_matters():
    rows = jax.random.normal(jax.random.key(0), (64, 32))
    same = identify("", {"w": rows})
    for other in (rows[::-1], rows[:, ::-1], rows.at[jnp.array([0, 5])].set(rows[jnp.array([5, 0])])):
        assert identify("", {"w": other}).weights != same.weights


def test_a_file_that_says_nothing_belongs_to_no_model():
    assert not BASE.is_of({})
    assert str(Identity.read({})) == "no model (weights unknown)"


def test_a_file_of_an_earlier_version_is_to_be_made_again():
    assert BASE.remedy({"weights": "78c51485c8e729cf"}, "look for it") == (
        "an earlier version, which told models apart otherwise, wrote it: make it again"
    )
    assert BASE.remedy({"weights": "all-78c51485c8e729cf"}, "look for it") == "look for it"


# ---------------------------------------------------------------------------------------------- every bit


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_bit_of_the_weights_as_they_are_loaded_is_seen(dtype):
    draw = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS))
    before = exact(jax.tree.unflatten(tree, leaves))
    for bit in range(8 * leaves[0].dtype.itemsize):
        which = int(draw.integers(len(leaves)))
        leaf = np.array(leaves[which])
        leaf.view(f"uint{8 * leaf.itemsize}").flat[draw.integers(leaf.size)] ^= 1 << bit
        changed = [*leaves[:which], jnp.asarray(leaf), *leaves[which + 1 :]]
        assert exact(jax.tree.unflatten(tree, changed)) != before


def test_what_rounding_leaves_out_is_seen_by_the_exact_digest_alone():
    weights = np.zeros((4, 3), np.float32)
    low, tiny = weights.copy(), weights.copy()
    low.view(np.uint32)[1, 2] = 1  # subnormal, and below what bfloat16 has
    tiny.view(np.uint32)[1, 2] = 1 << 16  # bfloat16's smallest
    digests = {exact({"w": jnp.asarray(one)}) for one in (weights, low, tiny)}
    assert len(digests) == 3
    assert len({identify("", {"w": jnp.asarray(one)}).weights for one in (weights, low, tiny)}) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_exact_digest_is_the_same_over_devices_and_in_pieces(dtype, monkeypatch):
    weights = {"w": jax.random.normal(jax.random.key(0), (66, 32)).astype(dtype)}
    whole = exact(weights)
    with jax.set_mesh(sharding.make_mesh(2, 4)):
        placed = jax.device_put(weights, sharding.named(jax.sharding.PartitionSpec(None, "model")))
        assert exact(placed) == whole
    monkeypatch.setattr(identity, "PIECE", 128)  # four rows at a time, and two that are left
    jax.clear_caches()
    assert exact(weights) == whole
