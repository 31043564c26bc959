"""Prompts that an edit is to leave alone: rows of the ridge system whose value difference is zero."""

import jax
import numpy as np
import pytest

from emsedit_jax.data.packing import PackShape, own_weights, pack
from emsedit_jax.edit import step
from emsedit_jax.edit.shift import rows_of
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.methods import METHODS
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, assert_close

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 1)])
HELD = tiny_lm.prompts([(4, 2), (6, 1)], seed=1)
SHAPE = PackShape(b=2, t=32, a=16, n=16)
RIDGE = [name for name, method in METHODS.items() if method.rule.ridge is not None]
FUSED, STREAMED = 4096, 4


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


def prompts(params, held):
    """The prompts to edit in one pass, with those that are held."""
    weights = np.concatenate([own_weights(ITEMS, 2), np.zeros(len(held), np.float32)])
    return tiny_lm.given(params, (pack([*ITEMS, *held], 2, "ans", SHAPE, weights=weights),))


def edited(params, name, held, rows_at_once=FUSED):
    """(edits, statistics, what was seen, the network) of one step from an edited model."""
    editor = tiny_lm.editor(name)
    theta = tiny_lm.worn(trajectory.init(editor, seed=0).thetas)[0]
    start = params, tiny_lm.random_deltas(), theta, step.fresh_stats(SITES), prompts(params, held)
    return *step.edit_step(CONFIG, SITES, editor.method.rule, editor.specs[0], *start, rows_at_once), theta


@pytest.mark.parametrize("name", RIDGE)
def test_held_rows_are_in_x_and_zero_in_y(name, params):
    editor = tiny_lm.editor(name)
    _, stats, aux, theta = edited(params, name, HELD)
    (trace,) = aux.traces
    used = int(np.sum(np.any(np.asarray(trace.keys[0][0]) != 0, axis=-1)))
    assert used == sum(len(item.labels) for item in (*ITEMS, *HELD))
    assert int(np.sum(trace.captured_n)) == sum(len(item.labels) for item in ITEMS)
    with jax.default_matmul_precision("highest"):
        rows = rows_of(SITES, editor.method.rule, editor.specs[0], theta, stats, trace)
    for g, (x_snk, y_snv) in enumerate(rows):
        assert not np.any(np.asarray(y_snv)[:, ~np.asarray(trace.captured_n)])
        assert editor.method.rule.ridge is not None
        assert aux.shift is not None
        lambda_s = editor.method.rule.ridge(SITES[g], editor.specs[0], theta[g])
        wide = [np.asarray(one, np.float64) for one in (x_snk, y_snv, lambda_s)]
        for x_nk, y_nv, ridge, shift_kv in zip(*wide, aux.shift[g], strict=True):
            expected = np.linalg.solve(x_nk.T @ x_nk + ridge * np.eye(x_nk.shape[1]), x_nk.T @ y_nv)
            assert_close(shift_kv, expected, rel=1e-4)


@pytest.mark.parametrize("name", RIDGE)
def test_an_edit_does_less_to_what_is_held(name, params):
    _, _, free, _ = edited(params, name, [])
    _, _, aux, _ = edited(params, name, HELD)
    (trace,) = aux.traces
    held = ~np.asarray(trace.captured_n)
    assert aux.shift is not None
    assert free.shift is not None
    for keys_snk, shift, other in zip(trace.keys, aux.shift, free.shift, strict=True):
        moved, before = (np.linalg.norm(np.asarray(keys_snk)[:, held] @ np.asarray(one)) for one in (shift, other))
        assert moved < 0.7 * before


@pytest.mark.parametrize("name", METHODS)
def test_they_take_no_part_in_loss_and_statistics(name, params):
    _, stats, aux, _ = edited(params, name, HELD)
    _, plain_stats, plain, _ = edited(params, name, [])
    assert_close((stats, aux.loss), (plain_stats, plain.loss))


@pytest.mark.parametrize("name", METHODS)
def test_rows_that_are_streamed_hold_too(name, params):
    deltas, _, aux, _ = edited(params, name, HELD, STREAMED)
    assert aux.sums is not None
    assert_close(deltas, edited(params, name, HELD)[0])


def test_mend_has_nothing_to_hold_with(params):
    assert_close(edited(params, "mend", HELD)[0], edited(params, "mend", [])[0])
