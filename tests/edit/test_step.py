"""Edit steps: what each captures, which rows its normaliser has seen, and what it adds to the edits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit import hypernet, step
from emsedit_jax.edit.capture import capture
from emsedit_jax.edit.shift import LEARNED_RIDGE
from emsedit_jax.lm import decoder
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, SPECS

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 1), (4, 3), (8, 2)])
ROWS = sum(len(item.labels) for item in ITEMS)


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@pytest.fixture(scope="module")
def prompts(params):
    return tiny_lm.given(params, (tiny_lm.packed(ITEMS),))


@pytest.fixture(scope="module")
def thetas():
    return tuple(hypernet.init(SITES, spec, jax.random.key(i)) for i, spec in enumerate(SPECS))


@pytest.fixture(scope="module")
def edited(params, thetas, prompts):
    """(deltas, statistics, what each step saw) after two steps from the unedited model."""
    deltas, stats, auxes = step.no_edit(SITES), [], []
    for spec, theta in zip(SPECS, thetas, strict=True):
        deltas, after, aux = step.edit_step(
            CONFIG, SITES, LEARNED_RIDGE, spec, params, deltas, theta, step.fresh_stats(SITES), prompts
        )
        stats.append(after)
        auxes.append(aux)
    return deltas, stats, auxes


def trace_of(aux):
    (trace,) = aux.traces
    return trace


def assert_trees_close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


def test_no_edit_has_a_matrix_for_every_site():
    assert [delta_skv.shape for delta_skv in step.no_edit(SITES)] == [(2, 8, 12), (1, 12, 8)]
    assert all(not delta_skv.any() for delta_skv in step.no_edit(SITES))


def test_deltas_are_the_shifts_summed(edited):
    deltas, _, auxes = edited
    assert len(auxes) == 2
    assert_trees_close(deltas, jax.tree.map(np.add, auxes[0].shift, auxes[1].shift), atol=1e-7)
    assert all(np.abs(shift_skv).max() > 1e-4 for aux in auxes for shift_skv in aux.shift)


def test_each_step_has_statistics_of_its_own_rows(edited):
    _, stats, auxes = edited
    for stats_i, aux in zip(stats, auxes, strict=True):
        jax.tree.map(np.testing.assert_array_equal, stats_i, aux.stats)  # the shift uses this step's rows already
        for group, one, keys, grads in zip(SITES, stats_i, trace_of(aux).keys, trace_of(aux).grads, strict=True):
            used_n = np.asarray(trace_of(aux).captured_n)
            rows = np.concatenate([keys, grads], axis=-1)[:, used_n].reshape(-1, group.k + group.v)
            assert int(one.count) == len(rows) == ROWS * len(group.layers)
            np.testing.assert_allclose(one.mean_c, rows.mean(0), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.var_c, rows.var(0), rtol=1e-3, atol=1e-9)


def test_the_second_step_captures_on_the_weights_that_the_first_left(params, prompts, edited):
    _, _, (first, second) = edited
    ((prefix_md, batch),) = prompts.passes()
    for aux, deltas in ((first, step.no_edit(SITES)), (second, first.shift)):
        assert_trees_close(trace_of(aux), capture(CONFIG, SITES, params, deltas, prefix_md, batch), atol=1e-6)
        assert aux.loss == trace_of(aux).loss
    assert second.loss < first.loss - 0.01  # and the edit does what it is for


def test_each_solve_is_told_to_be_one(edited):
    for aux in edited[2]:
        assert [error_s.shape for error_s in aux.error] == [(2,), (1,)]
        assert max(float(error_s.max()) for error_s in aux.error) < 1e-4


def test_no_edit_is_the_unedited_model(params, prompts):
    """Deltas of zero and no deltas at all give the same logits, bit for bit."""
    ((prefix_md, batch),) = prompts.passes()

    @jax.jit
    def logits(deltas):
        return decoder.answer_logits(CONFIG, SITES, params, deltas, prefix_md, batch)

    plain = logits(None)
    np.testing.assert_array_equal(logits(step.no_edit(SITES)), plain)
    assert np.abs(logits(tiny_lm.random_deltas()) - plain).max() > 0.01


def test_no_gradient_flows_into_the_trace_or_the_statistics(thetas, edited):
    aux = edited[2][0]

    def size(trace, stats):
        shift, error = step.shift_of(SITES, LEARNED_RIDGE, SPECS[0], thetas[0], stats, trace)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in (*shift, *error))

    gradients = jax.jit(jax.grad(size, argnums=(0, 1), allow_int=True))(trace_of(aux), aux.stats)
    floats = [leaf for leaf in jax.tree.leaves(gradients) if leaf.dtype == jnp.float32]
    assert len(floats) == 2 + 2 + 2 + 2 * 2  # keys, grads, loss and ce, mean and variance
    assert not any(leaf.any() for leaf in floats)
