import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emsedit_jax.edit import hypernet
from emsedit_jax.edit.hypernet import NetSpec, relu
from tests.tiny_lm import SITES

GROUP = SITES[0]  # two sites, k = 8, v = 12
SPEC = NetSpec(rank=3, n_blocks=2, lr=0.25)
ONE_BLOCK = SPEC._replace(n_blocks=1)


@pytest.fixture(scope="module")
def theta():
    return hypernet.init(SITES, SPEC, jax.random.key(0))


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def block_of(theta, **changes):
    """The parameters of a network of one block, some replaced."""
    (block,) = theta["blocks"].values()
    (place,) = theta["blocks"].keys()
    return theta | {"blocks": {place: block | changes}}


def output(group, spec, theta, z_snc):
    return jnp.concatenate(hypernet.merge(group, spec, theta)(jnp.asarray(z_snc)), axis=-1)


def test_relu_has_derivative_one_at_zero():
    assert [float(relu(jnp.float32(u))) for u in (-2, 0, 3)] == [0, 0, 3]
    assert [float(jax.grad(relu)(u)) for u in (-2.0, -1e-30, 0.0, -0.0, 1e-30, 3.0)] == [0, 0, 1, 1, 1, 1]


def test_fresh_parameters(theta):
    assert len(theta) == len(SITES)
    for group, net in zip(SITES, theta, strict=True):
        s, c = len(group.layers), group.k + group.v
        assert len(net["blocks"]) == 2
        for block in net["blocks"].values():
            shapes = {name: array.shape for name, array in block.items()}
            assert shapes == {"A": (c, 3), "B": (3, c), "bias": (c,), "scale": (s, c), "shift": (s, c)}
            for name in ("B", "bias", "shift"):
                np.testing.assert_array_equal(block[name], 0)
            np.testing.assert_array_equal(block["scale"], 1)
        np.testing.assert_array_equal(net["lr"], np.full((s, 1), 0.25))
        np.testing.assert_array_equal(net["lamda"], np.zeros((s, 1)))


def test_a_is_standard_normal_and_differs_by_block_group_and_key():
    (wide,) = hypernet.init((GROUP,), NetSpec(200, 2, 0.1), jax.random.key(3))
    first, second = (block["A"] for block in wide["blocks"].values())
    assert np.mean(first) == pytest.approx(0, abs=0.05)
    assert np.std(first) == pytest.approx(1, abs=0.05)
    (again,), (other,) = (hypernet.init((GROUP,), NetSpec(200, 2, 0.1), jax.random.key(key)) for key in (3, 4))
    again_first, other_first = (next(iter(net["blocks"].values()))["A"] for net in (again, other))
    np.testing.assert_array_equal(first, again_first)
    assert np.abs(first - second).max() > 0.1
    assert np.abs(first - other_first).max() > 0.1


def test_a_fresh_network_gives_back_its_input_split(theta):
    z_snc = draw(2, 5, 20)
    pseudo_keys, pseudo_grads = hypernet.merge(GROUP, SPEC, theta[0])(jnp.asarray(z_snc))
    np.testing.assert_array_equal(pseudo_keys, z_snc[..., :8])
    np.testing.assert_array_equal(pseudo_grads, z_snc[..., 8:])


def test_each_site_is_scaled_and_shifted_by_its_own(theta):
    (net,) = hypernet.init((GROUP,), ONE_BLOCK, jax.random.key(1))
    scale, shift, bias = draw(2, 20, seed=1), draw(2, 20, seed=2), draw(20, seed=3)
    z_snc = draw(2, 5, 20)
    out = output(GROUP, ONE_BLOCK, block_of(net, scale=scale, shift=shift, bias=bias), z_snc)
    np.testing.assert_allclose(out, z_snc + scale[:, None] * np.maximum(bias, 0) + shift[:, None], atol=1e-6)


def test_blocks_follow_each_other():
    (net,) = hypernet.init((GROUP,), SPEC, jax.random.key(2))
    places = list(net["blocks"])
    blocks = {place: block | {"B": 0.3 * draw(3, 20, seed=n)} for n, (place, block) in enumerate(net["blocks"].items())}
    expected = z_snc = draw(2, 5, 20)
    for place in places:
        hidden = expected @ np.asarray(blocks[place]["A"]) @ blocks[place]["B"]
        expected = expected + np.maximum(hidden, 0)
    np.testing.assert_allclose(output(GROUP, SPEC, net | {"blocks": blocks}, z_snc), expected, rtol=1e-4, atol=1e-4)


def test_the_first_gradient_in_closed_form():
    """With B = 0 every pre-activation is 0, so relu passes all: dL/dB = (z A)^T (scale * dL/dz'), and A rests."""
    (net,) = hypernet.init((GROUP,), ONE_BLOCK, jax.random.key(1))
    scale, z_snc, cotangent = draw(2, 20, seed=1), draw(2, 5, 20), draw(2, 5, 20, seed=5)
    net = block_of(net, scale=scale)
    (block,) = net["blocks"].values()
    gradient = jax.jit(jax.grad(lambda net: jnp.sum(output(GROUP, ONE_BLOCK, net, z_snc) * cotangent)))(net)
    (found,) = gradient["blocks"].values()
    passed = scale[:, None] * cotangent
    inner = z_snc @ np.asarray(block["A"])
    np.testing.assert_allclose(found["B"], np.einsum("snr,snc->rc", inner, passed), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["A"], 0)
    np.testing.assert_allclose(found["bias"], passed.sum((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["shift"], cotangent.sum(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["scale"], 0)  # relu(0) = 0


def test_parameters_go_through_the_structure_unchanged(theta):
    for group, net in zip(SITES, theta, strict=True):
        back = nnx.to_pure_dict(nnx.state(hypernet.merge(group, SPEC, net)))
        jax.tree.map(np.testing.assert_array_equal, back, net)
