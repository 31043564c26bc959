"""Step-wise training: each step edits the original model, teaches the one network at once, and is taken back."""

import jax
import numpy as np
import optax
import pytest

from emsedit_jax.edit.step import edit_step, no_edit
from emsedit_jax.meta import gradient
from emsedit_jax.meta.gradient import OptimiserSpec
from tests import tiny_lm
from tests.meta import tiny_training
from tests.meta.tiny_training import REG_COEF, STEPWISE, clipped, learning, minus, norm, plus, times, train
from tests.tiny_lm import CONFIG, SITES, assert_close, host

TASK = tiny_lm.task(0)
ITERS = 2


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


def editor(name):
    return tiny_lm.editor(name, iters=ITERS, num_seq=1)


@pytest.fixture(scope="module")
def start():
    """The state that each editor begins with."""
    return {name: host(tiny_training.fresh(editor(name), learning(name, 1))) for name in STEPWISE}


@pytest.fixture(scope="module")
def trained(params, start):
    """(edits, state, aux) after one batch of two steps."""
    return {name: train(params, editor(name), learning(name, 1), start[name], [TASK]) for name in STEPWISE}


def by_hand(params, name, theta, stats):
    """One step on the unedited model, spelt out: (statistics, aux, the loss's gradient, the network's)."""
    one, how = editor(name), learning(name, 1)
    prompts, taught = tiny_lm.given(params, TASK.edit), tiny_training.lessons(params, [TASK])
    deltas, stats, aux = edit_step(
        CONFIG, SITES, one.method.rule, one.specs[0], params, no_edit(SITES), theta, stats, prompts
    )
    coefs = {"loc_coef": how.loc_coef, "drift_coef": how.drift_coef}
    _, total = gradient.weight_gradient(CONFIG, SITES, params, no_edit(SITES), deltas, taught, **coefs)
    return stats, aux, total, gradient.pull_back(SITES, one.method.rule, one.specs[0], theta, aux, total)


@pytest.mark.parametrize("name", STEPWISE)
def test_one_network_and_one_normaliser_serve_every_step(name, start, trained):
    _, state, aux = trained[name]
    assert len(start[name].thetas) == len(state.thetas) == len(state.stats) == 1
    assert len(aux.steps) == len(aux.losses) == len(aux.weight_grads) == len(aux.norms) == ITERS
    counts = [int(aux.steps[i].stats[0].count) for i in range(ITERS)]
    assert counts == [2 * 9, 2 * 2 * 9]  # 9 answer rows at two sites, fed again in each step
    assert int(state.stats[0][0].count) == counts[-1]


@pytest.mark.parametrize("name", STEPWISE)
def test_edits_are_taken_back_exactly_and_each_step_sees_the_unedited_model(name, trained):
    deltas, _, aux = trained[name]
    jax.tree.map(np.testing.assert_array_equal, deltas, no_edit(SITES))
    first, second = (step.traces for step in aux.steps)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert all(np.abs(shift_skv).max() > 1e-4 for step in aux.steps for shift_skv in step.shift)


@pytest.mark.parametrize("name", STEPWISE)
def test_the_network_is_stepped_after_each_step_on_that_step_s_clipped_gradient(name, params, start, trained):
    spec = OptimiserSpec(tiny_training.META_LR)
    (theta,), (stats,) = jax.device_put((start[name].thetas, start[name].stats))
    opt_state = gradient.optimiser(spec).init((theta,))
    _, state, aux = trained[name]
    for i in range(ITERS):
        stats, seen, total, own = by_hand(params, name, theta, stats)
        assert_close(aux.steps[i].shift, seen.shift)
        assert_close(aux.weight_grads[i], total)
        assert float(aux.norms[i]) == pytest.approx(norm(own), rel=1e-4)
        (theta,), opt_state, _ = gradient.adam_step(spec, (theta,), opt_state, (clipped(own),))
    assert norm(minus(aux.steps[0].shift, aux.steps[1].shift)) > 1e-5
    assert_close(state.thetas, (theta,), rel=1e-4)
    assert norm(minus(state.thetas, start[name].thetas)) > tiny_training.META_LR
    assert optax.tree.get(state.opt_state, "count") == ITERS
    assert norm(state.grads) == 0


def test_emsedit_s_drift_is_the_shift_multiplied_once(params, start, trained):
    without = learning("emsedit", 1, drift_coef=0.0, update_every="trajectory")  # both steps by one network
    with_drift = without._replace(drift_coef=learning("emsedit", 1).drift_coef)
    assert with_drift.drift_coef == REG_COEF
    aux, other = (train(params, editor("emsedit"), how, start["emsedit"], [TASK])[2] for how in (with_drift, without))
    for i, step in enumerate(aux.steps):
        drift = gradient.stacked(minus(aux.weight_grads[i], other.weight_grads[i]))
        assert_close(drift, times(2 * REG_COEF, step.shift), rel=1e-3)
        assert float(aux.losses[i].drift) == pytest.approx(norm(step.shift) ** 2, rel=1e-4)
        assert (float(aux.losses[i].locality), aux.losses[i].locality_kl) == (0, ())


@pytest.mark.parametrize("name", [name for name in STEPWISE if tiny_training.METHODS[name].locality])
def test_locality_is_towards_the_unedited_model_and_there_is_no_drift(name, trained):
    assert learning(name, 1).drift_coef == 0
    for loss in trained[name][2].losses:
        assert float(loss.locality) > 1e-4
        assert len(loss.locality_kl) == 1


@pytest.mark.parametrize("name", STEPWISE)
def test_repeats_apply_the_same_gradient_twice(name, params, start):
    """As if the shared network were listed once for every edit step."""
    spec, how = OptimiserSpec(tiny_training.META_LR), learning(name, 1, update_every="trajectory")
    _, state, _ = train(params, editor(name), how, start[name], [TASK])
    grads = host(state.grads)
    thetas, opt_state = jax.device_put((start[name].thetas, start[name].opt_state))
    for _ in range(2):
        thetas, opt_state, _ = gradient.adam_step(spec, thetas, opt_state, grads)
    _, twice, _ = train(params, editor(name), how._replace(update_every="batch", repeats=2), start[name], [TASK])
    assert_close(twice.thetas, thetas)
    assert optax.tree.get(twice.opt_state, "count") == 2
    assert norm(twice.grads) == 0


@pytest.mark.parametrize("name", STEPWISE)
def test_an_update_may_wait_for_the_batch_or_longer(name, params, start):
    """The network rests meanwhile: both steps' gradients are taken at the one it started with, and summed up."""
    waits = learning(name, 1, update_every="trajectory")
    deltas, state, aux = train(params, editor(name), waits, start[name], [TASK])
    jax.tree.map(np.testing.assert_array_equal, deltas, no_edit(SITES))
    jax.tree.map(np.testing.assert_array_equal, state.thetas, start[name].thetas)
    assert optax.tree.get(state.opt_state, "count") == 0
    (theta,), (stats,) = jax.device_put((start[name].thetas, start[name].stats))
    total = times(0, theta)
    for i in range(ITERS):
        stats, _, _, own = by_hand(params, name, theta, stats)
        total = plus(total, own)
        assert float(aux.norms[i]) == pytest.approx(norm(total), rel=1e-4)
        total = clipped(total)
    assert_close(state.grads, (total,), rel=1e-4)

    _, updated, _ = train(params, editor(name), waits._replace(update_every="batch"), start[name], [TASK])
    assert optax.tree.get(updated.opt_state, "count") == 1
    moved = minus(updated.thetas, start[name].thetas)
    expected = jax.tree.map(lambda g: -tiny_training.META_LR * g / (np.abs(g) + 1e-8), host(state.grads))
    sizes = jax.tree.map(lambda g: np.abs(g) > 1e-6, host(state.grads))  # below, rounding decides
    jax.tree.map(lambda m, e, used: np.testing.assert_allclose(m[used], e[used], atol=3e-5), moved, expected, sizes)
