"""A whole trajectory, as a run trains it, is its batches one by one, each taught what the newest ones taught too."""

from pathlib import Path

import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from emsedit_jax.data.scoring import plan_scoring
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm.identity import Identity
from emsedit_jax.lm.model import LM
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.keeper import nothing
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.train import train as run_training
from tests import tiny_lm
from tests.meta import tiny_training
from tests.meta.tiny_training import DECAY, TRAJECTORY, learning, minus, norm
from tests.tiny_lm import CONFIG, SITES, assert_close, host

BATCHES, DEPTH = 4, 3


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


def prepared(params, editor, how, plan) -> Prepared:
    """A run of one trajectory; nothing is edited or scored after it."""
    sizes = {"dataset": {"n_edits": 4}, "editor": {"n_epochs": 1}, "train": {"n_trajectories": 1, "patience": 1}}
    return Prepared(
        config=ConfigDict(sizes),
        lm=LM(CONFIG, params, None, Path()),
        base=Identity("tiny", "0123"),
        editor=editor,
        learning=how,
        train_plan=plan,
        holdout=None,
        valid_plan=plan,
        score_plan=plan_scoring(plan, 64),
        prefixes=PrefixStore(CONFIG, SITES, params, 8),
    )


@pytest.mark.parametrize("name", TRAJECTORY)
def test_a_trajectory_replays_the_newest_batches(name, params):
    depth = DEPTH if METHODS[name].replay else 1
    editor, how = tiny_lm.editor(name, iters=1), learning(name, back_depth=depth, max_grad_norm=1e3)
    plan = tiny_lm.plan(range(BATCHES))
    tasks = [plan[j] for j in range(BATCHES)]
    logged: list[dict] = []
    clock = PhaseClock(CompileClock())
    run, state = prepared(params, editor, how, plan), tiny_training.fresh(editor, how)
    state, _ = run_training(run, state, clock, logged.append, nothing(clock))
    gathered = optax.tree.get(state.opt_state, "mu")  # a tenth of the sum

    def by_hand(weights):
        """The gradient gathered over the trajectory, lessons of each age weighing so much."""
        state, deltas = tiny_training.fresh(editor, how), no_edit(SITES)
        for j in range(BATCHES):
            ages = range(min(j + 1, len(weights)))
            lessons = [tiny_training.lessons(params, [tasks[j - age]])[0]._replace(weight=weights[age]) for age in ages]
            prompts = tiny_lm.given(params, tasks[j].edit)
            deltas, state, _ = trajectory.train_batch(editor, how, params, deltas, state, prompts, lessons)
        return host(state.grads)

    weights = [1.0, DECAY, DECAY**2] if METHODS[name].replay else [1.0]
    expected = by_hand(weights)
    assert_close(gathered, tiny_training.times(0.1, expected), rel=1e-4)
    assert [row["batch"] for row in logged] == list(range(BATCHES))
    assert optax.tree.get(state.opt_state, "count") == 1
    for others in ([*weights, DECAY ** len(weights)], [1.0] * DEPTH):  # deeper, or without decay: another gradient
        assert norm(minus(by_hand(others), expected)) > 1e-3 * norm(expected)
    assert np.isfinite(norm(gathered))
