"""How long networks are trained, on which rows, when the optimiser steps, and which networks are kept."""

import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from emsedit_jax.meta import trajectory
from emsedit_jax.run import keeper
from emsedit_jax.run import train as train_room
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.prepare import prepare
from emsedit_jax.run.resources import CompileClock
from tests.run import tiny

SMALL = ("--config.model.edit_modules=('model.layers.4.mlp.gate_proj',)", "--config.eval.examples=0")


def prepared(*more, editor="emsedit"):
    return prepare(tiny.command(*SMALL, *more, editor=editor).config)


def trained(*more, editor="emsedit"):
    """(the run, the state after training, the metrics)."""
    run, rows = prepared(*more, editor=editor), []
    state = trajectory.init(run.editor, 0, run.learning)
    clock = PhaseClock(CompileClock())
    return run, train_room.train(run, state, clock, rows.append, keeper.nothing(clock))[0], rows


def updates(state):
    return int(optax.tree.get(state.opt_state, "count"))


def places(rows, phase="train"):
    return [(row["trajectory"], row["batch"]) for row in rows if row["phase"] == phase]


def leaves(tree):
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def alike(one, other):
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


# ---------------------------------------------------------------------------------------------- how long


def test_epochs_go_over_the_same_batches_again_and_the_facts_are_edited_once(tmp_path):
    summary = tiny.train(tmp_path / "run", *SMALL, "--config.editor.n_epochs=2", "--config.editor.meta_lr=0.01")
    rows = tiny.rows(tmp_path / "run")
    assert places(rows) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row["batch"] for row in rows if row["phase"] == "edit"] == [0, 1]
    assert rows[0]["edit_loss"][0] == pytest.approx(rows[2]["edit_loss"][0], rel=1e-6)  # of the unedited model again
    assert rows[0]["equiv_loss"] != rows[2]["equiv_loss"]  # with networks that have learned meanwhile
    assert summary["edits"] == 8


def test_without_an_epoch_networks_stay_as_drawn_and_need_no_rows(tmp_path):
    more = ("--config.editor.n_epochs=0", "--config.dataset.train_path=")
    tiny.train(tmp_path / "run", *SMALL, *more)
    assert places(tiny.rows(tmp_path / "run")) == []
    found = load_file(tmp_path / "run" / "hypernet.safetensors")
    assert all((value == np.float32(0.05)).all() for name, value in found.items() if name.endswith("/lr"))


def test_trajectories_take_successive_rows_each_from_the_unedited_model():
    run, state, rows = trained("--config.train.n_trajectories=2", "--config.editor.n_epochs=2")
    assert places(rows) == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 1), (3, 2), (3, 3)]
    assert run.train_plan is not None
    np.testing.assert_array_equal(run.train_plan.rows, np.arange(16).reshape(4, 4))
    assert updates(state) == 4
    drift = [row["drift"][0] for row in rows]
    assert drift[0] < drift[1] > drift[2] < drift[3]


@pytest.mark.parametrize(
    ("editor", "more", "steps"),
    [
        ("emsedit", [], 1),  # the published program's: once a trajectory
        ("emsedit", ["--config.train.update_every=batch"], 2),
        ("emsedit", ["--config.train.update_every=step"], 4),  # two steps a batch
        ("rledit", ["--config.train.update_every=batch"], 2),
        ("malmen", ["--config.editor.max_steps=2"], 2),
        ("malmen", ["--config.editor.max_steps=2", "--config.train.update_every=trajectory"], 1),
        ("malmen", ["--config.editor.max_steps=2", "--config.editor.iters=2", "--config.train.repeat_shared"], 8),
        ("emsedit", ["--config.train.repeat_shared"], 1),  # a network for each step: none is shared
    ],
)
def test_when_the_optimiser_steps(editor, more, steps):
    run, state, _ = trained(*more, editor=editor)
    assert updates(state) == steps
    assert run.learning is not None
    assert run.learning.optimiser.steps == steps
    assert not any(grad.any() for grad in leaves(state.grads))


def test_a_schedule_and_weight_decay_change_what_is_learned():
    both = ("--config.train.n_trajectories=2", "--config.editor.meta_lr=0.01")
    _, plain, _ = trained(*both)
    for more in ("--config.train.schedule=cosine", "--config.train.warmup=1", "--config.train.weight_decay=0.1"):
        _, other, rows = trained(*both, more)
        assert len(rows) == 4
        assert all(np.isfinite(theta).all() for theta in leaves(other.thetas))
        assert not alike(plain.thetas, other.thetas), more


# ---------------------------------------------------------------------------------------------- which are kept

HELD = ("--config.train.holdout=2", "--config.editor.meta_lr=0.01")


@pytest.fixture
def scripted(monkeypatch):
    """Results on the held-out facts as a list says; gives the networks of every trajectory."""

    def script(results):
        seen, left = [], list(results)

        def try_out(run, state, facts, number):
            assert number == len(seen)
            seen.append(jax.tree.map(np.array, (state.thetas, state.stats)))
            return [{name: np.array([left.pop(0)]) for name in ("ES",)} | {"GS": np.zeros(1), "LS": np.zeros(1)}]

        monkeypatch.setattr(train_room, "try_out", try_out)
        return seen

    return script


@pytest.mark.parametrize(
    ("results", "patience", "count", "best"),
    [
        ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 1),  # stops before the last would have been better
        ([0.1, 0.3, 0.2, 0.4, 0.3], 2, 5, 3),  # better once more in time
        ([0.3, 0.3, 0.9], 1, 2, 0),  # as good is not better
        ([0.1, 0.2, 0.3], 3, 3, 2),
    ],
)
def test_training_stops_when_held_out_facts_get_no_better_and_the_best_are_kept(
    scripted, capsys, results, patience, count, best
):
    seen = scripted(results)
    more = (f"--config.editor.n_epochs={len(results)}", f"--config.train.patience={patience}")
    _, state, rows = trained(*HELD, *more)
    assert len(seen) == count
    kept = f"those of trajectory {best} are kept, with a mean of {100 * results[best] / 3:.1f} on the facts held out"
    early = f", stopped there: no better for {patience}" if count < len(results) else ""
    assert f"networks {kept} ({count} of {len(results)} made{early})" in capsys.readouterr().out
    assert [(row["trajectory"], row["ES"]) for row in rows if row["phase"] == "holdout"] == [
        (number, pytest.approx(100 * result)) for number, result in enumerate(results[:count])
    ]
    assert [alike((state.thetas, state.stats), one) for one in seen] == [number == best for number in range(count)]


def test_the_best_networks_are_saved_and_edited_with(scripted, tmp_path):
    seen = scripted([0.2, 0.1])
    tiny.train(tmp_path / "held", *SMALL, *HELD, "--config.editor.n_epochs=2")
    arrays = load_file(tmp_path / "held" / "hypernet.safetensors")
    rates = [name for name in arrays if name.endswith("/lr")]
    for number, (thetas, _) in enumerate(seen):
        same = [np.array_equal(arrays[name], theta[0]["lr"]) for name, theta in zip(rates, thetas, strict=True)]
        assert all(same) == (number == 0)
    again = tiny.train(tmp_path / "again", *SMALL, f"--config.editor.load={tmp_path / 'held'}")
    assert again["scores"] == tiny.read(tmp_path / "held" / "summary.json")["scores"]


def test_held_out_facts_are_scored_and_not_trained_on(capsys):
    run, state, rows = trained(*HELD)
    assert "8 of 60 to train on, 8 to try it out on, 8 of 60 facts to edit" in capsys.readouterr().out
    assert run.train_plan is not None
    assert run.holdout is not None
    np.testing.assert_array_equal(run.train_plan.rows, np.arange(8).reshape(2, 4))
    np.testing.assert_array_equal(run.holdout.plan.rows, np.arange(8, 16).reshape(2, 4))
    captured = sum(int(one.captured_n.sum()) for task in run.train_plan for one in task.edit)
    assert [int(group.count) for step in state.stats for group in step] == [captured, captured]
    (found,) = [row for row in rows if row["phase"] == "holdout"]
    assert set(found) == {"phase", "trajectory", "ES", "GS", "LS"}
    again = train_room.means(train_room.try_out(run, state, run.holdout, 0))  # trying them out left no trace in them
    assert again == {name: found[name] for name in again}
    assert found["ES"] > 0
