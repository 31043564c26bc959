"""The running sum with its clipping, and the optimiser, against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emsedit_jax.meta import gradient
from emsedit_jax.meta.gradient import OptimiserSpec
from tests.tiny_lm import host


def networks(*values):
    return tuple(({"A": jnp.array(one, jnp.float32)},) for one in values)


def numbers(tree):
    return [np.asarray(net[0]["A"]).tolist() for net in tree]


# ---- the running sum and its clipping ----


def test_below_the_limit_gradients_are_summed():
    total, norm = gradient.accumulate(networks([1.0, 2.0], [0.0]), 1, networks([2.0])[0], 100.0)
    assert numbers(total) == [[1, 2], [2]]
    assert float(norm) == pytest.approx(3)


def test_above_it_the_sum_over_all_networks_is_scaled_to_it():
    total, norm = gradient.accumulate(networks([3.0], [0.0]), 1, networks([4.0])[0], 1.0)
    assert float(norm) == pytest.approx(5)
    np.testing.assert_allclose(np.ravel(numbers(total)), [0.6, 0.8], rtol=1e-5)


def test_without_a_limit_it_is_the_sum_whatever_its_norm():
    total, norm = gradient.accumulate(networks([3e3], [0.0]), 1, networks([4e3])[0], jnp.inf)
    assert numbers(total) == [[3000], [4000]]
    assert float(norm) == pytest.approx(5000)


def test_clipping_is_cumulative():
    """What was clipped stays clipped when more is added: not the same as clipping the whole sum once."""
    total, norm = networks([0.0], [0.0]), 0
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


def steps(spec, value, grads):
    """The parameter after each step, and the optimiser's state after the last."""
    thetas = networks([value])
    opt_state, after = gradient.optimiser(spec).init(thetas), []
    for g in grads:
        thetas, opt_state, _ = gradient.adam_step(spec, thetas, opt_state, networks([g]))
        after.append(numbers(thetas)[0][0])
    return np.array(after), opt_state


def test_adam_by_hand():
    spec = OptimiserSpec(0.01)
    value, m, v = 2.0, 0.0, 0.0
    thetas, opt_state = networks([value, 1.0]), gradient.optimiser(spec).init(networks([value, 1.0]))
    for k, g in enumerate([0.5, -2.0, 0.1], 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        value -= 0.01 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        thetas, opt_state, _ = gradient.adam_step(spec, thetas, opt_state, networks([g, 0.0]))
        ((first, second),) = numbers(thetas)
        assert first == pytest.approx(value, rel=1e-5)
        assert second == 1


def test_adam_s_first_step_is_the_learning_rate_whatever_the_gradient():
    spec, thetas = OptimiserSpec(0.1), networks([1.0, 1.0, 1.0], [1.0])
    opt_state = gradient.optimiser(spec).init(thetas)
    stepped, *_ = gradient.adam_step(spec, thetas, opt_state, networks([1e-3, -5.0, 40.0], [-1.0]))
    np.testing.assert_allclose(np.concatenate(numbers(stepped)), [0.9, 1.1, 0.9, 1.1], rtol=1e-4)


COSINE = [0.5 * (1 + np.cos(np.pi * m / 6)) for m in range(8)]
RATES = {  # schedule, warmup steps, all steps: the share of meta_lr at each step
    ("constant", 0, 1): [1, 1, 1, 1],
    ("constant", 3, 5): [1 / 4, 2 / 4, 3 / 4, 1, 1, 1],
    ("linear", 0, 4): [1, 3 / 4, 2 / 4, 1 / 4, 0, 0],
    ("linear", 2, 6): [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0],
    ("cosine", 0, 6): [*COSINE[:7], 0],
    ("cosine", 1, 7): [1 / 2, *COSINE[:7]],
    ("linear", 5, 3): [1 / 6, 2 / 6, 3 / 6, 4 / 6],  # it ends while it still rises
}


@pytest.mark.parametrize(("schedule", "warmup", "all_steps"), RATES)
def test_the_learning_rate_of_each_step(schedule, warmup, all_steps):
    """Under a gradient that stays, Adam moves by its learning rate, whatever the gradient's size."""
    spec = OptimiserSpec(0.1, schedule, warmup, all_steps)
    shares = np.array(RATES[schedule, warmup, all_steps])
    rates = np.array([spec.rate()(m) for m in range(len(shares))], np.float64)
    np.testing.assert_allclose(rates, 0.1 * shares, atol=1e-8)
    after, _ = steps(spec, 0.0, [-3.0] * len(shares))
    np.testing.assert_allclose(np.diff(after, prepend=0.0), 0.1 * shares, atol=1e-5)


def test_weights_decay_apart_from_the_gradient():
    """By the learning rate times the coefficient at every step, on top of Adam's own movement."""
    after, _ = steps(OptimiserSpec(0.1, "linear", 0, 4, weight_decay=0.5), 2.0, [7.0] * 3)
    value, expected = 2.0, []
    for rate in (0.1, 0.075, 0.05):
        value -= rate * (1 + 0.5 * value)
        expected.append(value)
    np.testing.assert_allclose(after, expected, rtol=1e-5)


def test_etas_scales_and_shifts_do_not_decay():
    spec = OptimiserSpec(0.1, weight_decay=0.5)
    theta = {name: jnp.array([2.0]) for name in ("B", "lr", "lamda", "scale", "shift", "bias")}
    still = ((jax.tree.map(jnp.zeros_like, theta),),)
    after, *_ = gradient.adam_step(spec, ((theta,),), gradient.optimiser(spec).init(((theta,),)), still)
    moved = {name for name, value in after[0][0].items() if float(value[0]) != 2.0}
    assert moved == {"B"}


def test_the_optimiser_s_own_clip_is_of_the_norm_over_all_networks():
    spec = OptimiserSpec(0.1, clip=1.0)
    thetas = networks([1.0], [1.0])
    _, opt_state, _ = gradient.adam_step(spec, thetas, gradient.optimiser(spec).init(thetas), networks([3.0], [4.0]))
    np.testing.assert_allclose(np.ravel(numbers(optax.tree.get(opt_state, "mu"))), [0.06, 0.08], rtol=1e-5)
    thetas = networks([1.0], [1.0])
    _, opt_state, _ = gradient.adam_step(spec, thetas, gradient.optimiser(spec).init(thetas), networks([0.3], [0.4]))
    np.testing.assert_allclose(np.ravel(numbers(optax.tree.get(opt_state, "mu"))), [0.03, 0.04], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "spec", [OptimiserSpec(0.1), OptimiserSpec(0.1, "cosine", 2, 9, weight_decay=0.1, clip=1.0)], ids=["plain", "all"]
)
def test_no_step_on_a_gradient_that_is_not_finite(spec, bad):
    thetas = networks([1.0, 2.0], [3.0])
    opt_state = gradient.optimiser(spec).init(thetas)
    thetas, opt_state, _ = gradient.adam_step(spec, thetas, opt_state, networks([0.5, -1.0], [2.0]))
    before = host((thetas, opt_state))
    thetas, opt_state, norm = gradient.adam_step(spec, thetas, opt_state, networks([0.5, -1.0], [bad]))
    jax.tree.map(np.testing.assert_array_equal, (thetas, opt_state), before)
    assert not np.isfinite(norm)
    thetas, opt_state, norm = gradient.adam_step(spec, thetas, opt_state, networks([0.5, -1.0], [2.0]))
    assert float(norm) == pytest.approx(np.linalg.norm(np.concatenate(numbers(thetas))), rel=1e-6)
    assert all(np.abs(a - b).min() > 0 for a, b in zip(map(np.array, numbers(thetas)), numbers(before[0]), strict=True))


def test_no_step_that_would_leave_no_numbers():
    """Not in a repeated one either: what it leaves is what was there before it."""
    spec, thetas = OptimiserSpec(3e38), networks([3e38], [1.0])
    opt_state = gradient.optimiser(spec).init(thetas)
    before = host((thetas, opt_state))
    thetas, opt_state, norm = gradient.adam_step(spec, thetas, opt_state, networks([-0.5], [2.0]))
    jax.tree.map(np.testing.assert_array_equal, (thetas, opt_state), before)
    assert float(norm) == np.inf


def test_a_site_s_own_gradient_is_that_of_its_rows():
    group = {
        "blocks": [
            {"A": jnp.ones((4, 2)), "scale": jnp.array([[3.0, 0], [0, 0]]), "shift": jnp.array([[0.0, 0], [6, 0]])}
        ],
        "lr": jnp.array([[4.0], [0]]),
        "lamda": jnp.array([[0.0], [8]]),
    }
    ((found_s,),) = (gradient.own_norms((group,)),)
    np.testing.assert_allclose(found_s, [5.0, 10.0])
