import jax
import numpy as np
import pytest

from emsedit_jax.edit.step import no_edit
from emsedit_jax.meta import trajectory
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.editing import edit
from emsedit_jax.run.keeper import nothing
from emsedit_jax.run.prepare import prepare
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.train import train
from tests.run import tiny


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def alike(one, other):
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.fixture(scope="module")
def emsedit():
    return prepare(tiny.command("--config.editor.meta_lr=0.01").config)


@pytest.fixture(scope="module")
def ultraedit():
    return prepare(tiny.command(editor="ultraedit").config)


@pytest.fixture
def clock():
    return PhaseClock(CompileClock())


def test_training_moves_the_networks_and_not_the_model(emsedit, clock):
    before, params = trajectory.init(emsedit.editor, 0, emsedit.learning), arrays(emsedit.lm.params)
    thetas, rows = arrays(before.thetas), []
    after = train(emsedit, before, clock, rows.append, nothing(clock))[0]
    assert alike(params, emsedit.lm.params)
    moved = [np.abs(new - old).max() for new, old in zip(arrays(after.thetas), thetas, strict=True)]
    assert 0 < max(moved) < 0.0101  # one step of Adam moves a weight by at most its rate
    assert all(np.isfinite(theta).all() for theta in arrays(after.thetas))
    assert not any(grad.any() for grad in arrays(after.grads))  # the next trajectory starts anew
    rows_seen = sum(int(one.captured_n.sum()) * len(tiny.SITES) for task in emsedit.train_plan for one in task.edit)
    assert [int(group.count) for step in after.stats for group in step] == [rows_seen, rows_seen]

    assert [(row["phase"], row["batch"]) for row in rows] == [("train", 0), ("train", 1)]
    for row in rows:
        assert len(row["edit_loss"]) == len(row["grad_norm"]) == len(row["shift_norm"]) == 2  # edit steps
        assert len(row["solve_error"]) == 2
        assert len(row["equiv_loss"]) == len(row["drift"]) == 1  # one loss after both steps
        assert set(row["shift_norm"][0]) == set(row["solve_error"][0]) == set(tiny.SITES)
    assert 0 < rows[0]["drift"][0] < rows[1]["drift"][0]  # the edits of a trajectory stay
    assert clock.seconds["train"] > 0
    assert clock.seconds["edit"] == 0


def test_an_editor_without_networks_is_not_trained(ultraedit, clock):
    state, rows = trajectory.init(ultraedit.editor, 0), []
    assert train(ultraedit, state, clock, rows.append, nothing(clock))[0] is state
    assert rows == []


def test_each_batch_adds_its_shift_to_the_edits_before(ultraedit, clock):
    seen, rows = [no_edit(ultraedit.editor.sites)], []

    def after_batch(j, deltas):
        assert j == len(seen) - 1
        seen.append(deltas)
        return {"mark": 10 * j}

    state = trajectory.init(ultraedit.editor, 0)
    deltas = edit(ultraedit, state, clock, rows.append, after_batch, nothing(clock), dict).deltas
    assert alike(deltas, seen[-1])
    assert [(row["phase"], row["batch"], row["mark"]) for row in rows] == [("edit", 0, 0), ("edit", 1, 10)]
    for row, old, new in zip(rows, seen[:-1], seen[1:], strict=True):
        (norms,) = row["shift_norm"]  # one edit step
        for s, name in enumerate(tiny.SITES):
            added = np.linalg.norm(np.asarray(new[0][s], np.float64) - np.asarray(old[0][s], np.float64))
            np.testing.assert_allclose(norms[name], added, rtol=1e-4)
            assert added > 0


@pytest.mark.parametrize("scored", [False, True])
def test_metrics_are_read_while_the_next_batch_runs_unless_it_is_scored(ultraedit, clock, monkeypatch, scored):
    events, edit_batch = [], trajectory.edit_batch

    def begun(*given, **more):
        events.append("begun")
        return edit_batch(*given, **more)

    def after_batch(j, deltas):
        events.append("scored")
        return {}

    monkeypatch.setattr(trajectory, "edit_batch", begun)
    state = trajectory.init(ultraedit.editor, 0)
    idle, scoring = nothing(clock), after_batch if scored else None
    found = edit(ultraedit, state, clock, lambda row: events.append("told"), scoring, idle, dict)
    assert events == (["begun", "scored", "told"] * 2 if scored else ["begun", "begun", "told", "told"])
    usual = edit(ultraedit, state, clock, lambda row: None, None, idle, dict)
    assert alike(found.deltas, usual.deltas)
    assert clock.seconds["edit"] > 0
