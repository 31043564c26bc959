from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit import hypernet, step
from emsedit_jax.edit.capture import capture, prefix
from emsedit_jax.edit.shift import learned_ridge
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, SPECS

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 1), (4, 3), (8, 2)])
ROWS = sum(len(item.labels) for item in ITEMS)


@pytest.fixture(scope="module")
def batch():
    return tiny_lm.packed(ITEMS)


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


@pytest.fixture(scope="module")
def thetas():
    return tuple(hypernet.init(SITES, spec, jax.random.key(i)) for i, spec in enumerate(SPECS))


@pytest.fixture(scope="module")
def edited(params, thetas, batch):
    """(deltas, statistics, what each step saw) after two steps from the unedited model."""
    stats = (step.fresh_stats(SITES),) * 2
    prefix_btd = prefix(CONFIG, SITES, params, batch)
    return step.edit_steps(
        CONFIG, SITES, learned_ridge, SPECS, params, step.no_edit(SITES), thetas, stats, prefix_btd, batch
    )


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
        for group, one, keys, grads in zip(SITES, stats_i, aux.trace.keys, aux.trace.grads, strict=True):
            used_n = np.asarray(aux.trace.captured_n)
            rows = np.concatenate([keys, grads], axis=-1)[:, used_n].reshape(-1, group.k + group.v)
            assert int(one.count) == len(rows) == ROWS * len(group.layers)
            np.testing.assert_allclose(one.mean_c, rows.mean(0), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.var_c, rows.var(0), rtol=1e-3, atol=1e-9)


def test_the_second_step_captures_on_the_weights_that_the_first_left(params, batch, edited):
    _, _, (first, second) = edited
    prefix_btd = prefix(CONFIG, SITES, params, batch)
    assert_trees_close(first.trace, capture(CONFIG, SITES, params, step.no_edit(SITES), prefix_btd, batch), atol=1e-6)
    assert_trees_close(second.trace, capture(CONFIG, SITES, params, first.shift, prefix_btd, batch), atol=1e-6)
    assert second.trace.loss < first.trace.loss - 0.01  # and the edit does what it is for


def test_no_gradient_flows_into_the_trace_or_the_statistics(thetas, edited):
    aux = edited[2][0]

    def size(trace, stats):
        shift = step.shift_of(SITES, learned_ridge, SPECS[0], thetas[0], stats, trace)
        return sum(jnp.sum(jnp.square(shift_skv)) for shift_skv in shift)

    gradients = jax.jit(jax.grad(size, argnums=(0, 1), allow_int=True))(aux.trace, aux.stats)
    floats = [leaf for leaf in jax.tree.leaves(gradients) if leaf.dtype == jnp.float32]
    assert len(floats) == 2 + 2 + 2 + 2 * 2  # keys, grads, loss and ce, mean and variance
    assert not any(leaf.any() for leaf in floats)


def test_batches_of_one_shape_compile_each_program_once(params, thetas):
    programs: tuple[Any, ...] = (prefix, capture, step.learn_shift)
    sizes = []
    deltas, stats = step.no_edit(SITES), (step.fresh_stats(SITES),) * 2
    for seed in range(3):
        batch = tiny_lm.packed(tiny_lm.prompts([(4 + seed, 2), (6, 1 + seed)], seed))
        prefix_btd = prefix(CONFIG, SITES, params, batch)
        deltas, stats, _ = step.edit_steps(
            CONFIG, SITES, learned_ridge, SPECS, params, deltas, thetas, stats, prefix_btd, batch
        )
        sizes.append([program._cache_size() for program in programs])
    assert sizes[0] == sizes[1] == sizes[2]
    assert min(sizes[0]) > 0
    assert int(stats[0][0].count) == 2 * sum(2 + 1 + seed for seed in range(3))
