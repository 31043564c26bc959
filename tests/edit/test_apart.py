"""The ridge solves over devices: in pieces where the sites do not go round, with the numbers of one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.edit import apart, solve
from emsedit_jax.types import SiteGroup
from tests.sharded.conftest import MESHES

REL = 1e-5  # products in another order
FEW, MANY = 16, 64  # rows: fewer than the keys are wide, and more


def group_of(sites, k=24, v=32, wide="v"):
    names = tuple(f"site {s}" for s in range(sites))
    return SiteGroup(k, v, tuple(range(sites)), ("mlp.gate",) * sites, names, wide)


def problem(group, n):
    rng = np.random.default_rng(0)
    x_snk, y_snv = (rng.normal(size=(len(group.layers), n, width)).astype(np.float32) for width in (group.k, group.v))
    return x_snk, y_snv, np.linspace(0.5, 2.0, len(group.layers), dtype=np.float32)


def over(name):
    return jax.set_mesh(sharding.make_mesh(*MESHES[name]))


@pytest.mark.parametrize(
    ("name", "sites", "n", "wide"),
    [
        ("8x1", 12, FEW, "v"),
        ("8x1", 1, MANY, "k"),
        ("4x2", 6, FEW, "k"),
        ("4x2", 6, FEW, "v"),
        ("4x2", 3, MANY, "v"),  # filled up with sites of ones
        ("2x4", 3, FEW, "v"),
        ("2x4", 12, MANY, "k"),
    ],
)
def test_solves_over_devices_are_those_of_one(name, sites, n, wide):
    group = group_of(sites, wide=wide)
    given = problem(group, n)
    alone = solve.ridge(*map(jnp.asarray, given))
    with over(name):
        found = jax.jit(functools.partial(apart.solved, group))(*given)
    largest = np.abs(alone.delta_skv).max()
    np.testing.assert_allclose(found.delta_skv, alone.delta_skv, rtol=REL, atol=REL * largest)
    assert found.error_s.shape == (sites,)
    assert np.asarray(found.error_s).max() < REL


@pytest.mark.parametrize(("name", "sites"), [("8x1", 12), ("4x2", 6)])
def test_gradients_through_pieces_are_those_of_one_device(name, sites):
    group = group_of(sites)
    x_snk, y_snv, lambda_s = map(jnp.asarray, problem(group, FEW))
    weight_skv = np.random.default_rng(1).normal(size=(sites, group.k, group.v)).astype(np.float32)

    def loss(solved, y_snv, lambda_s):
        return jnp.sum(weight_skv * solved(x_snk, y_snv, lambda_s).delta_skv)

    def gradients(solved):
        return jax.jit(jax.grad(functools.partial(loss, solved), argnums=(0, 1)))(y_snv, lambda_s)

    alone = gradients(solve.ridge)
    with over(name):
        assert apart.pieces_of(group, FEW) > 1
        found = gradients(functools.partial(apart.solved, group))
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(
    ("sites", "n", "k", "v", "pieces"),
    [
        (16, FEW, 24, 32, 1),  # the sites go round
        (12, FEW, 24, 32, 2),  # three halves for each device
        (1, FEW, 24, 32, 8),
        (12, FEW, 24, 33, 1),  # there are no halves
        (12, 4096, 4096, 14_336, 2),
        (12, 14_336, 14_336, 4096, 1),  # making a system of wide keys twice takes longer than waiting
    ],
)
def test_in_how_many_pieces(sites, n, k, v, pieces):
    with over("8x1"):
        assert apart.pieces_of(group_of(sites, k, v), n) == pieces


@pytest.mark.parametrize(
    ("sites", "v", "streamed", "more"),
    [
        (16, 32, False, 0),
        (12, 32, False, 0),
        (12, 33, False, 4),
        (12, 32, True, 4),
        (16, 32, True, 0),
        (1, 33, False, 7),
    ],
)
def test_how_many_sites_of_ones_fill_the_solves(sites, v, streamed, more):
    with over("8x1"):
        assert apart.filling(group_of(sites, v=v), FEW, streamed) == more


@pytest.mark.parametrize("name", ["8x1", "4x2", "2x4", "1x8"])
def test_each_device_holds_its_share_of_what_is_solved(name):
    group = group_of(12)
    with over(name):
        found = jax.jit(functools.partial(apart.in_pieces, group))(*problem(group, FEW)).delta_skv
    held = {np.prod(piece.data.shape) for piece in found.addressable_shards}
    assert held == {12 * group.k * group.v // 8}


def test_a_piece_without_an_answer_is_seen():
    group = group_of(1)
    x_snk, y_snv, lambda_s = problem(group, FEW)
    y_snv[0, 0, -1] = np.nan  # of the last piece alone
    with over("8x1"):
        assert apart.pieces_of(group, FEW) > 1
        found = jax.jit(functools.partial(apart.solved, group))(x_snk, y_snv, lambda_s)
    assert np.isnan(found.error_s).all()
    assert np.isnan(np.linalg.norm(found.delta_skv))
