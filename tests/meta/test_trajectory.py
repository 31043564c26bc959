from typing import Any

import jax
import numpy as np
import optax
import pytest

from emsedit_jax.edit.capture import prefix
from emsedit_jax.edit.step import no_edit
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.methods import method, net_specs
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.types import EditTask
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, SPECS

EMSEDIT, ULTRAEDIT = method("emsedit"), method("ultraedit")
EDITOR = Editor(CONFIG, SITES, EMSEDIT, SPECS)
LEARNING = Learning(meta_lr=1e-3, max_grad_norm=1.0, reg_coef=0.5)
LENGTHS = [(5, 2), (7, 3), (5, 1), (4, 3)]


def host(tree):
    """A copy that no donation can take."""
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


def task(seed):
    return EditTask(*(tiny_lm.packed(tiny_lm.prompts(LENGTHS, 10 * seed + kind)) for kind in range(3)))


def train(params, deltas, state, one, learning=LEARNING):
    edit_prefix_btd, equiv_prefix_btd = (prefix(CONFIG, SITES, params, batch) for batch in (one.edit, one.equiv))
    return trajectory.train_batch(EDITOR, learning, params, deltas, state, edit_prefix_btd, equiv_prefix_btd, one)


@pytest.fixture(scope="module")
def trained(params):
    """Two batches of a trajectory: the state before, and (deltas, state, aux) after each."""
    state = trajectory.init(EDITOR, seed=0)
    start, weights, deltas, after = host(state), host(params), no_edit(SITES), []
    for seed in range(2):
        deltas, state, aux = train(params, deltas, state, task(seed))
        after.append(host((deltas, state, aux)))
    assert_equal(host(params), weights)  # the model is never touched
    return start, after


# ---- the beginning ----


def test_every_step_has_a_network_and_statistics_of_its_own():
    state = trajectory.init(EDITOR, seed=0)
    assert len(state.thetas) == len(state.stats) == len(state.grads) == 2
    ranks = [next(iter(theta[0]["blocks"].values()))["A"].shape[1] for theta in state.thetas]
    assert ranks == [4, 2]
    assert not any(leaf.any() for leaf in jax.tree.leaves((state.grads, state.opt_state, state.stats)))


def test_the_seed_decides_the_networks():
    one, same, other = (trajectory.init(EDITOR, seed).thetas for seed in (1, 1, 2))
    assert_equal(one, same)
    first, second = (next(iter(theta[0][0]["blocks"].values()))["A"] for theta in (one, other))
    assert np.abs(first - second).max() > 0.1


def test_an_editor_that_does_not_learn_has_no_networks(params):
    editor = Editor(CONFIG, SITES, ULTRAEDIT, net_specs(ULTRAEDIT, iters=1, lr=1e-4))
    state = trajectory.init(editor, seed=0)
    assert jax.tree.leaves((state.thetas, state.grads)) == []
    one = task(0)
    prefix_btd = prefix(CONFIG, SITES, params, one.edit)
    deltas, state, (aux,) = trajectory.edit_batch(editor, params, no_edit(SITES), state, prefix_btd, one)
    assert_close(deltas, aux.shift, atol=1e-7)
    assert all(np.abs(delta_skv).max() > 1e-5 for delta_skv in deltas)
    assert int(state.stats[0][0].count) == 2 * 9


# ---- on the way ----


def test_editing_changes_the_edits_and_the_statistics_alone(params, trained):
    state = trajectory.init(EDITOR, seed=0)
    one = task(0)
    prefix_btd = prefix(CONFIG, SITES, params, one.edit)
    deltas, after, auxes = trajectory.edit_batch(EDITOR, params, no_edit(SITES), state, prefix_btd, one)
    assert (after.thetas, after.opt_state, after.grads) == (state.thetas, state.opt_state, state.grads)
    trained_deltas, trained_state, trained_aux = trained[1][0]
    assert_close(deltas, trained_deltas, atol=1e-7)  # training edits as editing does
    assert_close(after.stats, trained_state.stats, atol=1e-7)
    assert len(auxes) == len(trained_aux.steps) == 2


def test_networks_and_optimiser_rest_until_the_trajectory_ends(trained):
    start, after = trained
    for _, state, _ in after:
        assert_equal(state.thetas, start.thetas)
        assert_equal(state.opt_state, start.opt_state)


def test_edits_and_statistics_stay_from_batch_to_batch(trained):
    (first, first_state, _), (second, second_state, aux) = trained[1]
    shifts = jax.tree.map(np.add, aux.steps[0].shift, aux.steps[1].shift)
    assert_close(second, jax.tree.map(np.add, first, shifts), atol=1e-6)
    for i in range(2):
        counts = [int(state.stats[i][0].count) for state in (first_state, second_state)]
        assert counts == [2 * 9, 4 * 9]  # 9 answer rows a batch, at two sites


def test_the_loss_is_taken_at_the_weights_after_all_steps_and_drift_counts_from_the_start(params, trained):
    deltas, _, aux = trained[1][1]
    assert float(aux.loss.drift) == pytest.approx(sum(np.sum(np.square(d)) for d in deltas), rel=1e-4)
    one = task(1)
    prefix_btd = prefix(CONFIG, SITES, params, one.equiv)
    loss, found = gradient.weight_gradient(CONFIG, SITES, params, deltas, prefix_btd, one.equiv, 0.5**2)
    np.testing.assert_allclose(aux.loss.equiv, loss.equiv, rtol=1e-4)
    assert_close(aux.weight_grads, found, rtol=1e-3, atol=1e-5)


def test_one_weight_gradient_serves_every_network_and_the_sum_is_clipped_after_each(trained):
    start, after = trained
    total = start.grads
    for _, state, aux in after:
        for i, spec in enumerate(EDITOR.specs):
            own = gradient.pull_back(SITES, EMSEDIT.rule, spec, start.thetas[i], aux.steps[i], aux.weight_grads)
            assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(own))
            total = (*total[:i], jax.tree.map(np.add, total[i], own), *total[i + 1 :])
            norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(total)))
            assert float(aux.norms[i]) == pytest.approx(norm, rel=1e-4)
            total = jax.tree.map(lambda leaf, norm=norm: leaf * min(1, 1 / (norm + 1e-6)), total)
        assert_close(state.grads, total, rtol=1e-3, atol=1e-6)
    assert max(float(norm) for _, _, aux in after for norm in aux.norms) > 1  # it was clipped


# ---- the end ----


def test_the_end_of_a_trajectory_is_one_step_of_the_optimiser(trained):
    start, after = trained
    state = after[-1][1]
    done = trajectory.finish(LEARNING, jax.device_put(state))
    for theta, grad, moved in zip(
        jax.tree.leaves(start.thetas), jax.tree.leaves(state.grads), jax.tree.leaves(done.thetas), strict=True
    ):
        np.testing.assert_allclose(moved, theta - 1e-3 * grad / (np.abs(grad) + 1e-8), atol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(done.grads))
    assert_equal(done.stats, state.stats)
    assert optax.tree.get(done.opt_state, "count") == 1


def test_a_second_trajectory_compiles_nothing_new(params):
    programs: tuple[Any, ...] = (
        prefix,
        gradient.weight_gradient,
        gradient.pull_back,
        gradient.accumulate,
        gradient.adam_step,
    )
    state, sizes = trajectory.init(EDITOR, seed=3), []
    for seed in range(2):
        _, state, _ = train(params, no_edit(SITES), state, task(seed))
        state = trajectory.finish(LEARNING, state)
        sizes.append([program._cache_size() for program in programs])
    assert sizes[0] == sizes[1]
    assert min(sizes[0]) > 0


def test_training_lowers_the_meta_loss(params):
    """Five trajectories over the same batch of facts: the loss on the other wordings falls."""
    learning, state, losses = LEARNING._replace(meta_lr=0.01), trajectory.init(EDITOR, seed=0), []
    for _ in range(5):
        _, state, aux = train(params, no_edit(SITES), state, task(0), learning)
        losses.append(float(aux.loss.equiv) + 0.25 * float(aux.loss.drift))
        state = trajectory.finish(learning, state)
    assert losses[-1] < losses[0] - 0.01
