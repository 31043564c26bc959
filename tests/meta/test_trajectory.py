"""Trajectories: edits stay, every step has its own network, and all wait for the end to be stepped once."""

import jax
import numpy as np
import optax
import pytest

from emsedit_jax.edit.step import no_edit
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.gradient import OptimiserSpec
from emsedit_jax.meta.methods import METHODS
from tests import tiny_lm
from tests.meta import tiny_training
from tests.meta.tiny_training import (
    DECAY,
    META_LR,
    REG_COEF,
    TRAJECTORY,
    clipped,
    learning,
    minus,
    norm,
    plus,
    times,
    train,
)
from tests.tiny_lm import CONFIG, SITES, assert_close, host

TASKS = [tiny_lm.task(seed) for seed in range(3)]
assert_equal = jax.tree_util.Partial(jax.tree.map, np.testing.assert_array_equal)


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@pytest.fixture(scope="module")
def start():
    """The state that each editor begins with."""
    return {name: host(tiny_training.fresh(tiny_lm.editor(name), learning(name))) for name in TRAJECTORY}


@pytest.fixture(scope="module")
def trained(params, start):
    """(edits, state, aux) after each of two batches, the second of which is taught the first one's lesson too."""
    weights, found = host(params), {}
    for name in TRAJECTORY:
        depth = learning(name).back_depth
        deltas, state, found[name] = no_edit(SITES), start[name], []
        for past in ([TASKS[0]], [TASKS[1], TASKS[0]]):
            after = train(params, tiny_lm.editor(name), learning(name), state, past[:depth], deltas)
            found[name].append(host(after))
            deltas, state, _ = after
    assert_equal(host(params), weights)  # the model is never touched
    return found


# ---- the beginning ----


@pytest.mark.parametrize("name", TRAJECTORY)
def test_every_step_has_a_network_and_statistics_of_its_own(name):
    state = trajectory.init(tiny_lm.editor(name, iters=3), seed=0, learning=learning(name))
    assert len(state.thetas) == len(state.stats) == len(state.grads) == 3
    ranks = [next(iter(theta[0]["blocks"].values()))["A"].shape[1] for theta in state.thetas]
    assert ranks == [4, 2, 1]
    assert not any(leaf.any() for leaf in jax.tree.leaves((state.grads, state.opt_state, state.stats)))


def test_the_seed_decides_the_networks():
    one, same, other = (trajectory.init(tiny_lm.editor("emsedit"), seed).thetas for seed in (1, 1, 2))
    assert_equal(one, same)
    first, second = (next(iter(theta[0][0]["blocks"].values()))["A"] for theta in (one, other))
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.learned])
def test_an_editor_that_does_not_learn_has_no_networks(name, params):
    editor = tiny_lm.editor(name)
    state = trajectory.init(editor, seed=0)
    assert jax.tree.leaves((state.thetas, state.grads)) == []
    prompts = tiny_lm.given(params, TASKS[0].edit)
    deltas, state, steps = trajectory.edit_batch(editor, params, no_edit(SITES), state, prompts, shifts=True)
    first, second = steps
    assert_close(deltas, plus(first.shift, second.shift))
    assert all(np.abs(delta_skv).max() > 1e-5 for delta_skv in deltas)
    assert [int(stats[0].count) for stats in state.stats] == [2 * 9, 2 * 9]


# ---- on the way ----


@pytest.mark.parametrize("name", TRAJECTORY)
def test_editing_changes_the_edits_and_the_statistics_alone(name, params, start, trained):
    state, prompts = jax.device_put(start[name]), tiny_lm.given(params, TASKS[0].edit)
    deltas, after, auxes = trajectory.edit_batch(tiny_lm.editor(name), params, no_edit(SITES), state, prompts)
    assert (after.thetas, after.opt_state, after.grads) == (state.thetas, state.opt_state, state.grads)
    trained_deltas, trained_state, trained_aux = trained[name][0]
    assert_close(deltas, trained_deltas)  # training edits as editing does
    assert_close(after.stats, trained_state.stats)
    assert len(auxes) == len(trained_aux.steps) == 2


def test_edits_between_the_steps_of_a_batch_are_not_kept(params, start, monkeypatch):
    before, edit_step = [], trajectory.edit_step

    def spy(config, sites, rule, spec, params, deltas, *more):
        before.append(deltas)
        return edit_step(config, sites, rule, spec, params, deltas, *more)

    monkeypatch.setattr(trajectory, "edit_step", spy)
    given = no_edit(SITES), jax.device_put(start["emsedit"]), tiny_lm.given(params, TASKS[0].edit)
    _, _, kept = trajectory.edit_batch(tiny_lm.editor("emsedit"), params, *given, lambda aux: float(aux.loss))
    assert [leaf.is_deleted() for leaf in before[1]] == [True] * len(SITES)
    assert before[0] is given[0]
    assert not any(leaf.is_deleted() for leaf in given[0])  # the caller's
    assert [type(loss) for loss in kept] == [float, float]  # what was asked for of each step, and no more


@pytest.mark.parametrize("name", TRAJECTORY)
def test_networks_and_optimiser_rest_until_the_trajectory_ends(name, start, trained):
    for _, state, _ in trained[name]:
        assert_equal(state.thetas, start[name].thetas)
        assert_equal(state.opt_state, start[name].opt_state)


@pytest.mark.parametrize("name", TRAJECTORY)
def test_edits_and_statistics_stay_from_batch_to_batch(name, trained):
    (first, first_state, first_aux), (second, second_state, aux) = trained[name]
    assert_close(first, plus(*(step.shift for step in first_aux.steps)))
    assert_close(second, plus(first, *(step.shift for step in aux.steps)))
    assert all(norm(step.shift) > 1e-3 for step in aux.steps)
    for i in range(2):
        counts = [int(state.stats[i][0].count) for state in (first_state, second_state)]
        assert counts == [2 * 9, 4 * 9]  # 9 answer rows a batch, at two sites


@pytest.mark.parametrize("name", TRAJECTORY)
def test_the_one_loss_is_taken_after_all_steps(name, params, trained):
    """Divergence is from the weights before the last step's shift; former batches weigh less with their age."""
    deltas, _, aux = jax.device_put(trained[name][1])
    how = learning(name)
    assert len(aux.losses) == len(aux.weight_grads) == 1
    before = minus(deltas, aux.steps[-1].shift)
    origin = before if METHODS[name].drift == "step" else None
    taught = tiny_training.lessons(params, [TASKS[1], TASKS[0]][: how.back_depth], DECAY)
    coefs = {"loc_coef": how.loc_coef, "drift_coef": how.drift_coef, "origin": origin}
    loss, total = gradient.weight_gradient(CONFIG, SITES, params, before, deltas, taught, **coefs)
    assert_close(aux.weight_grads[0], total, rel=1e-4)
    assert_close(host(aux.losses[0]), host(loss), rel=1e-3)
    earlier = minus(before, aux.steps[0].shift)  # before the batch: another reference, another gradient
    _, other = gradient.weight_gradient(CONFIG, SITES, params, earlier, deltas, taught, **coefs)
    assert (norm(minus(other, total)) > 1e-2 * norm(total)) == METHODS[name].locality


@pytest.mark.parametrize("name", TRAJECTORY)
def test_one_weight_gradient_serves_every_network_and_the_sum_is_clipped_after_each(name, start, trained):
    editor = tiny_lm.editor(name)
    total, norms = start[name].grads, []
    for _, state, aux in trained[name]:
        for i, spec in enumerate(editor.specs):
            theta, (weight_grad,) = start[name].thetas[i], aux.weight_grads
            seen = jax.device_put((theta, aux.steps[i], weight_grad))
            own = gradient.pull_back(SITES, editor.method.rule, spec, *seen)
            assert norm(own) > 0
            total = (*total[:i], plus(total[i], own), *total[i + 1 :])
            assert float(aux.norms[i]) == pytest.approx(norm(total), rel=1e-4)
            norms.append(norm(total))
            total = clipped(total)
        assert_close(state.grads, total, rel=1e-4)
    assert max(norms) > 1  # it was clipped


# ---- drift ----


def drift_part(params, name, start, how, deltas):
    """What of the weights' gradient is drift's, and the batch's (edits, aux)."""
    after, _, aux = train(params, tiny_lm.editor(name), how, start[name], [TASKS[1]], deltas)
    _, _, other = train(params, tiny_lm.editor(name), how._replace(drift_coef=0.0), start[name], [TASKS[1]], deltas)
    return gradient.stacked(minus(aux.weight_grads[0], other.weight_grads[0])), after, aux


@pytest.mark.parametrize(("reading", "coef"), [("program", REG_COEF**2), ("paper", REG_COEF)])
def test_emsedit_s_drift_counts_from_the_original_weights(reading, coef, params, start, trained):
    former = trained["emsedit"][0][0]
    drift, deltas, aux = drift_part(params, "emsedit", start, learning("emsedit", reading=reading), former)
    assert_close(drift, times(2 * coef, deltas), rel=1e-3)
    assert float(aux.losses[0].drift) == pytest.approx(norm(deltas) ** 2, rel=1e-4)


@pytest.mark.parametrize(("reading", "coef"), [("program", 0), ("paper", REG_COEF)])
def test_rledit_s_drift_counts_from_the_weights_before_the_last_step(reading, coef, params, start, trained):
    former = trained["rledit"][0][0]
    drift, _, aux = drift_part(params, "rledit", start, learning("rledit", reading=reading), former)
    last = aux.steps[-1].shift
    if coef:
        assert_close(drift, times(2 * coef, last), rel=1e-3)
    else:
        assert norm(drift) == 0
    assert float(aux.losses[0].drift) == pytest.approx(norm(last) ** 2, rel=1e-4)  # reported all the same


# ---- the end ----


@pytest.mark.parametrize("name", TRAJECTORY)
def test_the_end_of_a_trajectory_is_one_step_of_the_optimiser(name, start, trained):
    state = trained[name][-1][1]
    done, _ = trajectory.finish(learning(name), jax.device_put(state))
    for theta, grad, moved in zip(*map(jax.tree.leaves, (start[name].thetas, state.grads, done.thetas)), strict=True):
        sure = np.abs(grad) > 1e-6  # below, rounding decides
        expected = theta - META_LR * grad / (np.abs(grad) + 1e-8)
        np.testing.assert_allclose(np.asarray(moved)[sure], expected[sure], atol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(done.grads))
    assert_equal(done.stats, state.stats)
    assert optax.tree.get(done.opt_state, "count") == 1


@pytest.mark.parametrize("name", TRAJECTORY)
def test_an_update_a_batch_or_a_step_instead(name, params, start, trained):
    """With an update after every step each step has a loss of its own, which teaches its network alone."""
    for update_every, updates in (("batch", 1), ("step", 2)):
        how = learning(name, update_every=update_every)
        deltas, state, aux = train(params, tiny_lm.editor(name), how, start[name], TASKS[:1])
        assert optax.tree.get(state.opt_state, "count") == updates
        assert len(aux.losses) == len(aux.weight_grads) == updates
        assert norm(state.grads) == 0
        assert_close(deltas, plus(*(step.shift for step in aux.steps)))
        # the last loss is taken at the same weights, whoever else it teaches
        assert float(aux.losses[-1].equiv) == pytest.approx(float(trained[name][0][2].losses[0].equiv), rel=1e-4)
    _, whole, _ = train(params, tiny_lm.editor(name), learning(name), start[name], TASKS[:1])
    _, batch, _ = train(params, tiny_lm.editor(name), learning(name, update_every="batch"), start[name], TASKS[:1])
    assert_close(batch.thetas, trajectory.finish(learning(name), whole)[0].thetas)


@pytest.mark.parametrize("name", TRAJECTORY)
def test_with_one_clip_at_the_update_the_sum_grows_unclipped(name, params, start):
    at_update = OptimiserSpec(META_LR, clip=1.0)
    how = learning(name, running_clip=False, optimiser=at_update)
    deltas, state = no_edit(SITES), tiny_training.fresh(tiny_lm.editor(name), how)
    total = start[name].grads
    for past in ([TASKS[0]], [TASKS[1], TASKS[0]]):
        deltas, state, aux = train(params, tiny_lm.editor(name), how, state, past[: how.back_depth], deltas)
        for i, spec in enumerate(tiny_lm.editor(name).specs):
            rule, (weight_grad,) = METHODS[name].rule, aux.weight_grads
            own = gradient.pull_back(SITES, rule, spec, start[name].thetas[i], aux.steps[i], weight_grad)
            total = (*total[:i], plus(total[i], own), *total[i + 1 :])
            assert float(aux.norms[i]) == pytest.approx(norm(total), rel=1e-4)
    assert norm(total) > 2
    assert_close(state.grads, total, rel=1e-4)
    done, _ = trajectory.finish(how, state)
    assert_close(optax.tree.get(done.opt_state, "mu"), times(0.1, clipped(total)), rel=1e-4)


@pytest.mark.parametrize("name", TRAJECTORY)
def test_training_lowers_the_meta_loss(name, params):
    """Five trajectories over the same batch of facts: the loss on the other wordings falls."""
    how = learning(name, optimiser=OptimiserSpec(0.01))
    state, losses = trajectory.init(tiny_lm.editor(name), 0, how), []
    for _ in range(5):
        _, state, aux = train(params, tiny_lm.editor(name), how, state, TASKS[:1])
        loss = aux.losses[0]
        losses.append(float(loss.equiv + how.loc_coef * loss.locality + how.drift_coef * loss.drift))
        state, _ = trajectory.finish(how, state)
    assert losses[-1] < losses[0] - 0.01
