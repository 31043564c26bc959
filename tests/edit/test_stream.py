"""Padding, bucket sizes, passes, chunks and the order of micro-batches change nothing of an edit, for every editor."""

import jax
import numpy as np
import pytest

from emsedit_jax.data.packing import PackShape
from emsedit_jax.edit import capture, step
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.methods import METHODS
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, assert_close

LENGTHS = ((5, 2), (7, 2), (6, 1), (4, 2), (8, 2), (3, 1))  # three micro-batches of two, 10 answer rows
ONE_PASS = PackShape(b=2, t=24, a=16, n=16)  # n above every key width: the primal solve
SPARE = PackShape(b=4, t=16, a=24, n=40)
TIGHT = PackShape(b=2, t=24, a=10, n=10)  # between the key widths: primal for one shape of site, dual for the other
SMALL = PackShape(b=1, t=24, a=8, n=8)  # of one pass of two or three
FUSED, STREAMED = 4096, 4  # rows at once: 10 rows in three chunks, the last half full


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@pytest.fixture(scope="module")
def thetas():
    """Networks of two steps with no number 0 or 1, per editor."""

    def worn(name):
        return tiny_lm.worn(trajectory.init(tiny_lm.editor(name), seed=0).thetas)

    return {name: worn(name) for name in METHODS}


def batches(shape=ONE_PASS, pass_tokens=None):
    return tiny_lm.task(0, LENGTHS, shape, pass_tokens).edit


def given(params, batches):
    return tiny_lm.given(params, batches)


def edited(name, thetas, params, prompts, rows_at_once=FUSED):
    """(deltas, statistics, loss, shift) of each of two steps that share a normaliser, from an edited model."""
    editor = tiny_lm.editor(name)
    deltas, stats, found = tiny_lm.random_deltas(), step.fresh_stats(SITES), []
    for net in map(editor.slot, range(editor.iters)):
        start = (editor.specs[net], params, deltas, thetas[name][net], stats, prompts)
        deltas, stats, aux = step.edit_step(CONFIG, SITES, editor.method.rule, *start, rows_at_once)
        found.append((deltas, stats, aux.loss, aux.shift))
        assert max(float(error_s.max()) for error_s in aux.error) < 1e-4
        assert (aux.sums is None) == (rows_at_once == FUSED)
    return tiny_lm.host(found)


@pytest.fixture(scope="module")
def usual(params, thetas):
    """Each editor's steps over one pass, solved at once."""
    prompts = given(params, batches())
    return {name: edited(name, thetas, params, prompts) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_something_to_compare(name, usual):
    (_, _, loss, shift), (_, stats, later, _) = usual[name]
    assert all(np.abs(shift_skv).max() > 1e-3 for shift_skv in shift)
    assert abs(later - loss) > 1e-3
    assert [int(one.count) for one in stats] == [2 * 2 * 10, 2 * 1 * 10]


CUTS = {  # shape, tokens of a pass, how many passes, rows at once
    "padding": (SPARE, None, 1, FUSED),
    "bucket": (TIGHT, None, 1, FUSED),
    "streamed": (ONE_PASS, None, 1, STREAMED),
    "two passes, streamed": (ONE_PASS, 24, 2, STREAMED),
    "a pass for every micro-batch": (SMALL, 1, 3, FUSED),
    "a pass for every micro-batch, streamed": (SMALL, 1, 3, STREAMED),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", METHODS)
def test_neither_packing_nor_passes_nor_chunks_change_an_edit(name, cut, params, thetas, usual):
    shape, pass_tokens, passes, rows_at_once = CUTS[cut]
    prompts = given(params, batches(shape, pass_tokens))
    assert len(prompts.batches) == passes
    assert_close(edited(name, thetas, params, prompts, rows_at_once), usual[name])


@pytest.mark.parametrize("rows_at_once", [FUSED, STREAMED], ids=["fused", "streamed"])
@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_micro_batches_changes_nothing(name, rows_at_once, params, thetas, usual):
    backwards = batches(SMALL, 1)[::-1]
    assert_close(edited(name, thetas, params, given(params, backwards), rows_at_once), usual[name])


def test_which_path_is_taken(params, thetas):
    """More rows than fit together are streamed, as many are not; padding counts, as it takes room."""
    prompts = given(params, batches(SMALL, 1))
    assert prompts.rows == 24
    editor = tiny_lm.editor("emsedit")
    start = (editor.specs[0], params, step.no_edit(SITES), thetas["emsedit"][0], step.fresh_stats(SITES), prompts)
    for rows_at_once, traces in ((24, 1), (9, 2)):
        _, _, aux = step.edit_step(CONFIG, SITES, editor.method.rule, *start, rows_at_once)
        assert (len(aux.traces), aux.sums is None) == (traces, traces == 1)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(aux.traces)) == (traces == 2)
    assert [trace.captured_n.sum() for trace in aux.traces] == [9, 1]  # without the passes' padding
    assert aux.without_rows().traces == ()
    assert aux.without_rows().sums is None
    assert aux.without_rows().shift is aux.shift


def test_prefixes_are_asked_for_pass_by_pass(params):
    """A run may keep them on disk, or compute them again: no more than one is asked for at a time."""
    asked = []

    def below(number):
        asked.append(number)
        return capture.prefix(CONFIG, SITES, params, cut[number])

    cut = batches(SMALL, 1)
    passes = Prompts(cut, below).passes()
    for number, batch in enumerate(cut):
        assert next(passes)[1] is batch
        assert asked == list(range(number + 1))


# ---- how often programs are compiled ----


@pytest.mark.parametrize("rows_at_once", [FUSED, STREAMED], ids=["fused", "streamed"])
@pytest.mark.parametrize("name", METHODS)
def test_batches_of_one_shape_compile_nothing_new(name, rows_at_once, params, caplog):
    """After the first batch of two steps: other prompts, a model and a normaliser already in use."""
    editor = tiny_lm.editor(name, rows_at_once=rows_at_once)
    state, compiled = trajectory.init(editor, seed=0), []
    deltas = step.no_edit(SITES)
    for seed in range(3):
        with tiny_lm.compilations(caplog) as programs:
            task = tiny_lm.task(seed, ((4 + seed, 2), (6, 1), (5, 1 + seed), (3, 1)), pass_tokens=1)
            prompts = given(params, task.edit)
            deltas, state, _ = trajectory.edit_batch(editor, params, deltas, state, prompts)
        assert len(prompts.batches) == 2
        compiled.append(programs)
    assert compiled[1:] == [[], []]


def test_compilations_are_seen(caplog):
    with tiny_lm.compilations(caplog) as programs:
        jax.jit(lambda x: x + 41)(np.zeros(7))
    assert len(programs) == 1
