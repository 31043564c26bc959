"""Keys and value gradients are those of the loss, whatever rows are padding and however prompts are packed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from emsedit_jax.data.packing import PackShape, sorted_order
from emsedit_jax.edit import capture
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import decoder
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 1), (4, 3), (8, 2)])
SHAPE = PackShape(b=2, t=24, a=16, n=48)  # room for every token in n


@pytest.fixture(scope="module")
def params():
    return tiny_lm.weights()


def trace_of(params, batch, deltas):
    prefix_md = capture.prefix(CONFIG, SITES, params, batch)
    return jax.device_get(capture.capture(CONFIG, SITES, params, deltas, prefix_md, batch))


@functools.partial(jax.jit, static_argnums=(0, 1))
def loss_gradient(config, sites, params, deltas, batch):
    """The loss written out, and its gradient with respect to each site's weight."""

    def loss_of(deltas):
        where = (batch.positions_bt, batch.segments_bt)
        x_btd = decoder.prefix(config, params, decoder.lowest_layer(sites), batch.tokens_bt, *where)
        x_btd, _ = decoder.suffix(config, sites, params, deltas, x_btd, *where)
        logits_aV = decoder.logits(config, params, x_btd.reshape(-1, config.d)[batch.answer_at_a])
        log_p_aV = jax.nn.log_softmax(logits_aV, axis=-1)
        picked_a = log_p_aV[jax.numpy.arange(len(batch.labels_a)), batch.labels_a]
        return -jax.numpy.sum(picked_a * batch.weights_a), -picked_a

    return jax.value_and_grad(loss_of, has_aux=True)(deltas)


@pytest.fixture(scope="module")
def deltas():
    return tiny_lm.random_deltas()


@pytest.fixture(scope="module")
def everywhere(params, deltas):
    """(batch, trace) with all token rows captured."""
    batch = tiny_lm.packed(ITEMS, SHAPE, rule="all")
    return batch, trace_of(params, batch, deltas)


def test_keys_times_value_gradients_of_all_rows_are_the_weight_gradient(params, deltas, everywhere):
    batch, trace = everywhere
    (loss, ce_a), weight_grads = loss_gradient(CONFIG, SITES, params, deltas, batch)
    for keys_snk, grads_snv, expected_skv in zip(trace.keys, trace.grads, weight_grads, strict=True):
        assert np.abs(expected_skv).max() > 0.01
        np.testing.assert_allclose(np.einsum("snk,snv->skv", keys_snk, grads_snv), expected_skv, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trace.loss, loss, rtol=1e-5)
    used = batch.item_a >= 0
    np.testing.assert_allclose(trace.ce_a[used], np.asarray(ce_a)[used], atol=1e-5)


def test_unused_rows_are_zero(everywhere):
    batch, trace = everywhere
    assert batch.captured_n.sum() == sum(len(item.tokens) for item in ITEMS) < len(batch.captured_n)
    np.testing.assert_array_equal(trace.captured_n, batch.captured_n)
    for rows in (*trace.keys, *trace.grads):
        np.testing.assert_array_equal(rows[:, ~batch.captured_n], 0)
        assert np.abs(rows[:, batch.captured_n]).max() > 0.01
    np.testing.assert_array_equal(trace.ce_a[batch.item_a < 0], 0)


def test_one_weighted_pass_is_the_loop_over_micro_batches(params, deltas, everywhere):
    batch, whole = everywhere
    order, loss, used = sorted_order(ITEMS), 0.0, batch.captured_n
    parts = []
    for start in range(0, len(ITEMS), 2):  # longest first, two prompts each
        micro = [ITEMS[place] for place in order[start : start + 2]]
        alone = tiny_lm.packed(micro, SHAPE, micro_batch_size=len(micro), rule="all")
        weights_a = alone.weights_a[alone.item_a >= 0]
        np.testing.assert_allclose(weights_a, 1 / sum(len(item.labels) for item in micro))
        trace = trace_of(params, alone, deltas)
        loss += trace.loss
        parts.append([rows[:, alone.captured_n] for rows in (*trace.keys, *trace.grads)])
    np.testing.assert_allclose(whole.loss, loss, rtol=1e-5)
    for rows, *pieces in zip((*whole.keys, *whole.grads), *parts, strict=True):
        np.testing.assert_allclose(rows[:, used], np.concatenate(pieces, axis=1), atol=1e-5)


def test_answer_rows_are_a_choice_among_all_rows(params, deltas, everywhere):
    batch, whole = everywhere
    answers = tiny_lm.packed(ITEMS, SHAPE, rule="ans")
    answers = dataclasses.replace(answers, only_answers=False)  # in one piece, as all rows are: the same sums
    trace = trace_of(params, answers, deltas)
    chosen = np.flatnonzero(np.isin(batch.capture_at_n[batch.captured_n], answers.answer_at_a))
    assert len(chosen) == answers.captured_n.sum()
    for rows, some in zip((*whole.keys, *whole.grads), (*trace.keys, *trace.grads), strict=True):
        np.testing.assert_allclose(some[:, answers.captured_n], rows[:, chosen], atol=1e-6)


def test_padding_and_bucket_sizes_change_nothing(params, deltas, everywhere):
    batch, trace = everywhere
    other = tiny_lm.packed(ITEMS, PackShape(b=4, t=16, a=24, n=64), rule="all")
    wider = trace_of(params, other, deltas)
    np.testing.assert_allclose(wider.loss, trace.loss, rtol=1e-5)
    for one, two in zip((*trace.keys, *trace.grads), (*wider.keys, *wider.grads), strict=True):
        np.testing.assert_allclose(two[:, other.captured_n], one[:, batch.captured_n], atol=1e-5)


def test_edits_are_seen_above_the_edited_map_and_not_below(params, deltas, everywhere):
    batch, edited = everywhere
    plain = trace_of(params, batch, no_edit(SITES))
    assert SITES[0].layers == (1, 2)
    np.testing.assert_allclose(edited.keys[0][0], plain.keys[0][0], atol=1e-6)  # the lowest site's input
    assert np.abs(edited.keys[0][1] - plain.keys[0][1]).max() > 0.01
    assert np.abs(edited.grads[0][0] - plain.grads[0][0]).max() > 1e-3


def test_a_step_against_the_value_gradients_lowers_the_loss(params, everywhere):
    batch, _ = everywhere
    zero = trace_of(params, batch, no_edit(SITES))
    down = tuple(-0.05 * np.einsum("snk,snv->skv", k, g) for k, g in zip(zero.keys, zero.grads, strict=True))
    assert trace_of(params, batch, down).loss < zero.loss - 0.01
