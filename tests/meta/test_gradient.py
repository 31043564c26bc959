"""The meta-gradient and the optimiser, against finite differences and formulas by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit.capture import capture, prefix
from emsedit_jax.edit.hypernet import NetSpec, init
from emsedit_jax.edit.shift import learned_ridge
from emsedit_jax.edit.step import StepAux, shift_of
from emsedit_jax.meta import gradient
from emsedit_jax.types import NormStats, Trace
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES

SPEC = NetSpec(rank=3, n_blocks=1, lr=0.1)
N = 5


def draw(rng, tree, scale=1.0):
    """A tree of float64 normal numbers of the same shapes."""
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape)), tree)


def random_aux(rng):
    """A step that saw random rows, in float64; the last row is unused."""

    def rows(group, width):
        return jnp.asarray(rng.normal(size=(len(group.layers), N, width)) * used_n[:, None])

    def stats(c):
        return NormStats(jnp.int32(9), jnp.asarray(rng.normal(size=c)), jnp.asarray(rng.uniform(1, 2, c)))

    used_n = jnp.arange(N) < N - 1
    keys, grads = tuple(rows(g, g.k) for g in SITES), tuple(rows(g, g.v) for g in SITES)
    trace = Trace(keys, grads, used_n, jnp.zeros(()), jnp.zeros(1))
    return StepAux(trace, tuple(stats(g.k + g.v) for g in SITES), tiny_lm.random_deltas())


def test_pull_back_is_the_derivative_of_the_shift():
    rng = np.random.default_rng(0)
    fresh = init(SITES, SPEC, jax.random.key(0))
    with jax.enable_x64(True):
        theta, cotangent = draw(rng, fresh, 0.5), draw(rng, tiny_lm.random_deltas())
        aux = random_aux(rng)

        @jax.jit
        def along(theta):
            shift = shift_of(SITES, learned_ridge, SPEC, theta, aux.stats, aux.trace)
            return sum(jnp.vdot(g_skv, shift_skv) for g_skv, shift_skv in zip(cotangent, shift, strict=True))

        found = gradient.pull_back(SITES, learned_ridge, SPEC, theta, aux, cotangent)
        assert jax.tree.structure(found) == jax.tree.structure(theta)
        leaves, tree = jax.tree.flatten(jax.device_get(theta))
        for place, slope_of in enumerate(jax.tree.leaves(found)):  # each parameter in a direction of its own
            step = 1e-6 * rng.normal(size=leaves[place].shape)
            up, down = (
                along(jax.tree.unflatten(tree, [*leaves[:place], leaves[place] + one, *leaves[place + 1 :]]))
                for one in (step, -step)
            )
            slope = np.vdot(slope_of, step)
            assert slope == pytest.approx(float(up - down) / 2, rel=1e-4, abs=1e-13)
            assert abs(slope) > 1e-11


@pytest.fixture(scope="module")
def equiv():
    shape = tiny_lm.SHAPE._replace(n=48)
    return tiny_lm.packed(tiny_lm.prompts([(5, 2), (7, 3), (5, 1), (4, 3), (8, 2)], seed=5), shape, rule="all")


def test_weight_gradient_is_that_of_cross_entropy_and_of_drift(equiv):
    params, deltas = tiny_lm.weights(), tiny_lm.random_deltas()
    prefix_btd = prefix(CONFIG, SITES, params, equiv)
    trace = capture(CONFIG, SITES, params, deltas, prefix_btd, equiv)
    parts, found = gradient.weight_gradient(CONFIG, SITES, params, deltas, prefix_btd, equiv, 0.25)
    np.testing.assert_allclose(parts.equiv, trace.loss, rtol=1e-5)
    np.testing.assert_allclose(parts.equiv_ce_a, trace.ce_a, atol=1e-5)
    np.testing.assert_allclose(parts.drift, sum(np.sum(np.square(d)) for d in deltas), rtol=1e-5)
    for keys, grads, delta_skv, found_skv in zip(trace.keys, trace.grads, deltas, found, strict=True):
        ce_skv = np.einsum("snk,snv->skv", keys, grads)  # of all rows: the gradient of the cross-entropy
        np.testing.assert_allclose(found_skv, ce_skv + 2 * 0.25 * delta_skv, rtol=1e-4, atol=1e-5)


# ---- the running sum and its clipping ----


def networks(*values):
    return tuple(({"A": jnp.array(one, jnp.float32)},) for one in values)


def numbers(tree):
    return [np.asarray(net[0]["A"]).tolist() for net in tree]


def test_below_the_limit_gradients_are_summed():
    total, norm = gradient.accumulate(networks([1.0, 2.0], [0.0]), 1, networks([2.0])[0], 100.0)
    assert numbers(total) == [[1, 2], [2]]
    assert float(norm) == pytest.approx(3)


def test_above_it_the_sum_over_all_networks_is_scaled_to_it():
    total, norm = gradient.accumulate(networks([3.0], [0.0]), 1, networks([4.0])[0], 1.0)
    assert float(norm) == pytest.approx(5)
    np.testing.assert_allclose(np.ravel(numbers(total)), [0.6, 0.8], rtol=1e-5)


def test_clipping_is_cumulative():
    """What was clipped stays clipped when more is added: not the same as clipping the whole sum once."""
    total = networks([0.0], [0.0])
    for i, value in ((0, 30.0), (1, 1.0), (0, 1.0)):
        total, norm = gradient.accumulate(total, i, networks([value])[0], 1.0)
    # (30, 0) -> (1, 0); (1, 1) -> (r, r), r = 1 / sqrt(2); (r + 1, r) -> over its norm
    r = 1 / np.sqrt(2)
    assert float(norm) == pytest.approx(np.hypot(r + 1, r), rel=1e-4)
    np.testing.assert_allclose(np.ravel(numbers(total)), np.array([r + 1, r]) / np.hypot(r + 1, r), rtol=1e-4)


def test_a_gradient_of_zero_stays_zero():
    total, norm = gradient.accumulate(networks([0.0], [0.0]), 0, networks([0.0])[0], 1.0)
    assert (numbers(total), float(norm)) == ([[0], [0]], 0)


# ---- the optimiser ----


def test_adam_by_hand():
    meta_lr, value, m, v = 0.01, 2.0, 0.0, 0.0
    thetas, opt_state = networks([value, 1.0]), gradient.optimiser(meta_lr).init(networks([value, 1.0]))
    for k, g in enumerate([0.5, -2.0, 0.1], 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        value -= meta_lr * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        thetas, opt_state = gradient.adam_step(meta_lr, thetas, opt_state, networks([g, 0.0]))
        ((first, second),) = numbers(thetas)
        assert first == pytest.approx(value, rel=1e-5)
        assert second == 1


def test_adam_s_first_step_is_the_learning_rate_whatever_the_gradient():
    thetas = networks([1.0, 1.0, 1.0], [1.0])
    opt_state = gradient.optimiser(0.1).init(thetas)
    stepped, _ = gradient.adam_step(0.1, thetas, opt_state, networks([1e-3, -5.0, 40.0], [-1.0]))
    np.testing.assert_allclose(np.concatenate(numbers(stepped)), [0.9, 1.1, 0.9, 1.1], rtol=1e-4)
