"""Padding, passes, chunks and the order of micro-batches change nothing of what is learnt, for every editor."""

import dataclasses
import weakref

import jax
import numpy as np
import optax
import pytest

from emsedit_jax.data.packing import PackShape
from emsedit_jax.edit import stream
from emsedit_jax.edit.step import no_edit
from emsedit_jax.meta import trajectory
from emsedit_jax.types import EditTask
from tests import tiny_lm
from tests.meta import tiny_training
from tests.meta.tiny_training import STEPWISE, TRAJECTORY, learning, norm, train
from tests.tiny_lm import SITES, assert_close, host

LENGTHS = ((5, 2), (7, 2), (6, 1), (4, 2), (8, 2), (3, 1))  # three micro-batches of two, 10 answer rows
ONE_PASS = PackShape(b=2, t=24, a=16, n=16)
SMALL = PackShape(b=1, t=24, a=8, n=8)  # of one micro-batch: other rows are padding, and more of them
FUSED, STREAMED = 4096, 1  # rows at once
CASES = [(name, 1) for name in STEPWISE] + [(name, 2) for name in TRAJECTORY]


def tasks(shape=ONE_PASS, pass_tokens=None):
    """A batch and the one before it, newest first."""
    return [tiny_lm.task(seed, LENGTHS, shape, pass_tokens) for seed in (1, 0)]


def backwards(task):
    """The same passes in the other order."""
    return EditTask(task.edit[::-1], task.equiv[::-1], task.unrel[::-1])


WAYS = {
    "a pass for every micro-batch": (tasks(SMALL, 1), FUSED),
    "streamed": (tasks(SMALL, 1), STREAMED),
    "streamed backwards": ([backwards(task) for task in tasks(SMALL, 1)], STREAMED),
}


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


def learnt(params, name, num_seq, given, rows_at_once):
    """(edits, statistics, losses, weights' gradients, gradients gathered, their norms), from an edited model."""
    editor = tiny_lm.editor(name, num_seq=num_seq, rows_at_once=rows_at_once)
    how = learning(name, num_seq, "paper", update_every="trajectory")
    state = tiny_training.fresh(editor, how)
    deltas, state, aux = train(params, editor, how, state, given[: how.back_depth], tiny_lm.random_deltas())
    assert all((step.traces == ()) == (rows_at_once == STREAMED) for step in aux.steps)  # streamed rows are let go
    losses = [(float(loss.equiv), float(loss.locality), float(loss.drift)) for loss in aux.losses]
    return host((deltas, state.stats, losses, aux.weight_grads, state.grads, aux.norms))


@pytest.fixture(scope="module")
def usual(params):
    """What each editor learns from one pass, solved at once."""
    return {case: learnt(params, *case, tasks(), FUSED) for case in CASES}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "num_seq"), CASES)
def test_neither_padding_nor_passes_nor_chunks_change_what_is_learnt(name, num_seq, way, params, usual):
    deltas, stats, losses, weight_grads, grads, norms = learnt(params, name, num_seq, *WAYS[way])
    *expected, expected_grads, expected_norms = usual[name, num_seq]
    assert_close([deltas, stats, weight_grads], [*expected[:2], expected[3]])
    assert_close(losses, expected[2], rel=3e-5)  # a divergence keeps the rounding of the logits it is a difference of
    assert_close(norms, expected_norms)
    assert_close(grads, expected_grads, floor=3e-2)  # where a leaf's sum cancels, its terms' rounding is left
    assert norm(grads) > 0.01


@pytest.mark.parametrize("rows_at_once", [FUSED, STREAMED], ids=["fused", "streamed"])
@pytest.mark.parametrize(("name", "num_seq"), CASES)
def test_later_batches_compile_nothing_new(name, num_seq, rows_at_once, params, caplog):
    """After the first trajectory of two batches, with its update: not a second one, nor networks of another eta."""
    editor = tiny_lm.editor(name, num_seq=num_seq, rows_at_once=rows_at_once)
    how = learning(name, num_seq)
    state, compiled = trajectory.init(editor, 0, how), []
    lengths = [((4 + seed, 2), (6, 1), (5, 1 + seed), (3, 1)) for seed in range(2)]
    for number in range(2):
        deltas, past = no_edit(SITES), []
        editor = editor._replace(specs=tuple(spec._replace(lr=0.02 + number) for spec in editor.specs))
        with tiny_lm.compilations(caplog) as programs:
            for seed in range(2):
                past.insert(0, tiny_lm.task(2 * number + seed, lengths[seed], pass_tokens=1))
                deltas, state, _ = train(params, editor, how, state, past[: how.back_depth], deltas)
            state = trajectory.finish(how, state)[0] if how.update_every == "trajectory" else state
        compiled.append(programs)
    assert compiled[1] == []


@pytest.mark.parametrize(("name", "num_seq"), CASES)
def test_a_batch_without_a_finite_gradient_leaves_the_networks_alone(name, num_seq, params):
    """A weight of infinity, as an overflow would give."""
    editor, how = tiny_lm.editor(name, num_seq=num_seq), learning(name, num_seq, update_every="batch")
    state = tiny_training.fresh(editor, how)
    before, (task, _) = host(state), tasks()
    (equiv,) = task.equiv
    broken = dataclasses.replace(equiv, weights_a=np.where(equiv.weights_a > 0, np.float32(np.inf), equiv.weights_a))
    task = dataclasses.replace(task, equiv=(broken,))
    _, state, aux = train(params, editor, how, state, [task])
    assert not np.isfinite(norm(aux.weight_grads))
    assert not np.isfinite(float(aux.norms[-1]))
    jax.tree.map(np.testing.assert_array_equal, (state.thetas, state.opt_state), (before.thetas, before.opt_state))
    assert norm(state.grads) == 0  # the next batch starts afresh
    _, state, _ = train(params, editor, how, state, tasks()[:1])
    assert optax.tree.get(state.opt_state, "count") == 1
    assert norm(tiny_training.minus(state.thetas, before.thetas)) > tiny_training.META_LR


@pytest.mark.parametrize("name", STEPWISE)
def test_no_streamed_rows_outlive_their_step(params, name, monkeypatch):
    refs: list[weakref.ref] = []
    left: list[int] = []  # rows of former steps that are still there when a step begins to gather its own

    class Watched(stream.Waiting):
        def __init__(self, *sizes):
            left.append(sum(ref() is not None for ref in refs))
            super().__init__(*sizes)

        def _empty(self):
            trace = super()._empty()
            refs.extend(weakref.ref(rows) for rows in (*trace.keys, *trace.grads))
            return trace

    monkeypatch.setattr(stream, "Waiting", Watched)
    learnt(params, name, 1, tasks(SMALL, 1), STREAMED)
    assert refs
    assert left == [0, 0]
