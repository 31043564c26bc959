import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.types import SiteGroup, Trace, pytree, static
from tests import tiny_lm


@pytree
class Pair:
    left: object
    right: object
    name: str = static(default="pair")


def test_a_pytree_flattens_in_the_order_of_its_fields_without_the_static_ones():
    leaves, tree = jax.tree.flatten(Pair(1, (2, 3), "x"))
    assert leaves == [1, 2, 3]
    assert jax.tree.unflatten(tree, [4, 5, 6]) == Pair(4, (5, 6), "x")
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(Pair(1, (2, 3)))]
    assert paths == [".left", ".right[0]", ".right[1]"]


def test_static_fields_are_part_of_the_structure():
    same, other = jax.tree.structure(Pair(1, 2, "x")), jax.tree.structure(Pair(1, 2, "y"))
    assert jax.tree.structure(Pair(8, 9, "x")) == same != other
    traced = []

    @jax.jit
    def left(pair):
        traced.append(pair.name)
        return pair.left

    for pair in (Pair(1.0, 2.0, "x"), Pair(3.0, 4.0, "x"), Pair(1.0, 2.0, "y")):
        assert left(pair) == pair.left
    assert traced == ["x", "y"]


def test_a_pytree_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pair(1, 2).left = 3  # pyrefly: ignore[read-only]


def test_tree_functions_may_put_anything_in_place_of_arrays():
    batch = tiny_lm.packed(tiny_lm.prompts([(3, 2)]))
    assert jax.tree.map(lambda x: None, batch).tokens_bt is None
    shapes = jax.eval_shape(lambda batch: batch, batch)
    assert shapes.tokens_bt.shape == (2, 24)
    assert jax.tree.structure(shapes) == jax.tree.structure(batch)


def test_a_batch_of_mismatched_arrays_cannot_be_built():
    batch = tiny_lm.packed(tiny_lm.prompts([(3, 2)]))
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    assert type(batch)(**fields).labels_a is batch.labels_a
    with pytest.raises(TypeError, match="labels_a"):
        type(batch)(**fields | {"labels_a": batch.labels_a[:-1]})
    with pytest.raises(TypeError, match="tokens_bt"):
        type(batch)(**fields | {"tokens_bt": batch.tokens_bt.astype(np.float32)})


def test_groups_of_a_trace_differ_in_shape():
    keys = (jnp.zeros((2, 4, 8)), jnp.zeros((1, 4, 12)))
    grads = (jnp.zeros((2, 4, 12)), jnp.zeros((1, 4, 8)))
    trace = Trace(keys, grads, jnp.ones(4, bool), jnp.zeros(()), jnp.zeros(3))
    assert [leaf.shape for leaf in jax.tree.leaves(trace)][:2] == [(2, 4, 8), (1, 4, 12)]


def test_a_site_group_is_hashable_and_named_by_its_shape():
    group = SiteGroup(8, 12, (1, 2), ("mlp.gate", "mlp.gate"), ("a", "b"))
    assert group.shape_key == "8x12"
    assert {group: 1}[SiteGroup(8, 12, (1, 2), ("mlp.gate", "mlp.gate"), ("a", "b"))] == 1
