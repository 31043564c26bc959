"""The meta-loss's gradient against a loss written out without packing, and the networks' against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.packing import sorted_order
from emsedit_jax.edit.hypernet import NetSpec, init
from emsedit_jax.edit.step import StepAux, shift_of
from emsedit_jax.lm import decoder
from emsedit_jax.meta import gradient
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.types import Deltas, NormStats, Trace
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, assert_close

# ---- through the shift ----

SPEC = NetSpec(rank=3, n_blocks=1, lr=0.1)
N = 5


def draw(rng, tree, scale=1.0):
    """A tree of float64 normal numbers of the same shapes."""
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape)), tree)


def random_aux(rng):
    """A step that saw random rows, in float64; the last row is unused."""

    def rows(group, width):
        return jnp.asarray(rng.normal(size=(len(group.layers), N, width)) * used_n[:, None])

    def stats(c):
        return NormStats(jnp.int32(9), jnp.asarray(rng.normal(size=c)), jnp.asarray(rng.uniform(1, 2, c)))

    used_n = jnp.arange(N) < N - 1
    keys, grads = tuple(rows(g, g.k) for g in SITES), tuple(rows(g, g.v) for g in SITES)
    trace = Trace(keys, grads, used_n, jnp.zeros(()), jnp.zeros(1))
    seen = tuple(stats(g.k + g.v) for g in SITES)
    of_a_site = jnp.zeros(2), jnp.zeros(1)
    return StepAux((trace,), trace.loss, seen, of_a_site, of_a_site, tiny_lm.random_deltas())


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.learned])
def test_pull_back_is_the_derivative_of_the_shift(name):
    rng, rule = np.random.default_rng(0), METHODS[name].rule
    fresh = init(SITES, SPEC, jax.random.key(0))
    with jax.enable_x64(True):
        theta, cotangent = draw(rng, fresh, 0.5), draw(rng, tiny_lm.random_deltas())
        aux = random_aux(rng)

        @jax.jit
        def along(theta):
            shift, _ = shift_of(SITES, rule, SPEC, theta, aux.stats, aux.traces[0])
            return sum(jnp.vdot(g_skv, shift_skv) for g_skv, shift_skv in zip(cotangent, shift, strict=True))

        found = gradient.pull_back(SITES, rule, SPEC, theta, aux, gradient.by_site(cotangent))
        assert jax.tree.structure(found) == jax.tree.structure(theta)
        places, tree = jax.tree_util.tree_flatten_with_path(jax.device_get(theta))
        leaves = [leaf for _, leaf in places]
        for at, slope_of in enumerate(jax.tree.leaves(found)):  # each parameter in a direction of its own
            step = 1e-6 * rng.normal(size=leaves[at].shape)
            up, down = (
                along(jax.tree.unflatten(tree, [*leaves[:at], leaves[at] + one, *leaves[at + 1 :]]))
                for one in (step, -step)
            )
            slope = np.vdot(slope_of, step)
            assert slope == pytest.approx(float(up - down) / 2, rel=1e-4, abs=1e-13)
            unused = rule.ridge is None and "lamda" in jax.tree_util.keystr(places[at][0])
            assert (abs(slope) > 1e-11) != unused


# ---- of the meta-loss ----

LENGTHS = {"now": ((5, 2), (7, 3), (5, 1), (4, 3), (8, 2)), "past": ((6, 1), (5, 4), (7, 2))}  # last batch: not full
TASKS = {when: tiny_lm.task(seed, lengths) for seed, (when, lengths) in enumerate(LENGTHS.items(), 7)}


def rows_of(when, kind):
    """The prompts of a kind, one a row: (tokens, positions, segments, places of the answers, labels, weights).

    A weight is one over the answer tokens of two prompts that follow each other in order of length.
    """
    number = {"equiv": 1, "unrel": 2}[kind]
    items = tiny_lm.prompts(LENGTHS[when], 10 * {"now": 7, "past": 8}[when] + number)
    items = [items[m] for m in sorted_order(items)]
    t = max(len(item.tokens) for item in items)
    tokens_bt, positions_bt, segments_bt = np.zeros((3, len(items), t), np.int32)
    at, labels, weights = [], [], []
    for b, item in enumerate(items):
        own = slice(0, len(item.tokens))
        tokens_bt[b, own], positions_bt[b, own], segments_bt[b, own] = item.tokens, np.arange(len(item.tokens)), 1
        micro_batch = items[b - b % 2 : b - b % 2 + 2]
        at += [b * t + item.prompt_len - 1 + m for m in range(len(item.labels))]
        labels += item.labels
        weights += [1 / sum(len(one.labels) for one in micro_batch)] * len(item.labels)
    return tokens_bt, positions_bt, segments_bt, np.array(at), np.array(labels), np.array(weights)


def log_probs(params, deltas, rows):
    tokens_bt, *where, at_a, _, _ = rows
    x_btd = decoder.prefix(CONFIG, params, decoder.lowest_layer(SITES), tokens_bt, *where)
    x_btd, _ = decoder.suffix(CONFIG, SITES, params, deltas, x_btd, *where)
    return jax.nn.log_softmax(decoder.logits(CONFIG, params, x_btd.reshape(-1, CONFIG.d)[at_a]), axis=-1)


def cross_entropy(params, deltas, when):
    *_, labels_a, weights_a = rows = rows_of(when, "equiv")
    return -jnp.sum(log_probs(params, deltas, rows)[np.arange(len(labels_a)), labels_a] * weights_a)


def divergence(params, before, deltas, when):
    """KL(before || after), by probabilities."""
    *_, weights_a = rows = rows_of(when, "unrel")
    p_aV, q_aV = (jnp.exp(log_probs(params, one, rows)) for one in (jax.lax.stop_gradient(before), deltas))
    return jnp.sum(jnp.sum(p_aV * jnp.log(p_aV / q_aV), axis=-1) * weights_a)


@functools.cache
def written_out() -> dict[str, tuple[jax.Array, Deltas]]:
    """(value, gradient) of each part of the meta-loss and each lesson, unweighted."""
    params, before, deltas, origin = world()

    def squares(deltas):
        return sum(jnp.sum(jnp.square(one - other)) for one, other in zip(deltas, origin, strict=True))

    def parts(deltas):
        found = {f"equiv {when}": cross_entropy(params, deltas, when) for when in LENGTHS}
        found |= {f"locality {when}": divergence(params, before, deltas, when) for when in LENGTHS}
        return found | {"drift": squares(deltas), "drift from the start": sum(jnp.vdot(one, one) for one in deltas)}

    values, gradients = jax.jit(lambda deltas: (parts(deltas), jax.jacrev(parts)(deltas)))(deltas)
    return {name: (value, gradients[name]) for name, value in values.items()}


@functools.cache
def world():
    """(params, edits before, edits after, where drift counts from)."""
    return (tiny_lm.weights(), *(tiny_lm.random_deltas(seed=seed, scale=0.15) for seed in (1, 2, 3)))


def lesson(when, weight):
    params = world()[0]
    return Lesson(tiny_lm.given(params, TASKS[when].equiv), tiny_lm.given(params, TASKS[when].unrel), weight)


def test_the_meta_loss_and_its_gradient_are_the_ones_written_out():
    params, before, deltas, origin = world()
    lessons = [lesson("now", 1.0), lesson("past", 0.7)]
    found, total = gradient.weight_gradient(
        CONFIG, SITES, params, before, deltas, lessons, loc_coef=0.6, drift_coef=0.25, origin=origin
    )
    by_hand = written_out()
    for part in ("equiv", "locality"):
        value = by_hand[f"{part} now"][0] + 0.7 * by_hand[f"{part} past"][0]
        assert float(getattr(found, part)) == pytest.approx(float(value), rel=1e-5)
        assert value > 0.01
    assert float(found.drift) == pytest.approx(float(by_hand["drift"][0]), rel=1e-5)
    terms = {"equiv now": 1, "equiv past": 0.7, "locality now": 0.6, "locality past": 0.42}
    expected = [jax.tree.map(lambda g, c=c: c * g, by_hand[name][1]) for name, c in (terms | {"drift": 0.25}).items()]
    assert all(np.abs(leaf).max() > 0.01 for leaf in jax.tree.leaves(expected))
    assert_close(gradient.stacked(total), jax.tree.map(lambda *leaves: sum(leaves), *expected), rel=1e-4)


def test_drift_counts_from_the_unedited_weights_where_nothing_else_is_said():
    params, before, deltas, _ = world()
    found, total = gradient.weight_gradient(CONFIG, SITES, params, before, deltas, [], drift_coef=0.25)
    assert float(found.drift) == pytest.approx(float(written_out()["drift from the start"][0]), rel=1e-5)
    assert_close(gradient.stacked(total), jax.tree.map(lambda delta_skv: 0.5 * delta_skv, deltas))


@pytest.mark.parametrize(("loc_coef", "told"), [(0.0, True), (0.6, False)])
def test_without_locality_there_is_cross_entropy_alone(loc_coef, told):
    params, before, deltas, _ = world()
    equiv, unrel, weight = lesson("now", 1.0)
    one = Lesson(equiv, unrel if told else None, weight)
    found, total = gradient.weight_gradient(CONFIG, SITES, params, before, deltas, [one], loc_coef=loc_coef)
    assert (float(found.locality), found.locality_kl) == (0, ())
    assert_close(gradient.stacked(total), written_out()["equiv now"][1], rel=1e-4)


def test_what_has_not_moved_diverges_by_nothing():
    params, _, deltas, _ = world()
    one = lesson("now", 1.0)
    found, total = gradient.weight_gradient(CONFIG, SITES, params, deltas, deltas, [one], loc_coef=0.6)
    assert abs(float(found.locality)) < 1e-6
    assert_close(gradient.stacked(total), written_out()["equiv now"][1], rel=1e-4)


def test_each_answer_row_s_own_losses_are_reported():
    """Unweighted: their mean over micro-batches is the loss."""
    params, before, deltas, _ = world()
    lessons = [lesson("now", 1.0), lesson("past", 0.7)]
    found, _ = gradient.weight_gradient(CONFIG, SITES, params, before, deltas, lessons, loc_coef=0.6)
    for per_row, kind, part in (
        (found.equiv_ce, "equiv", found.equiv),
        (found.locality_kl, "unrel", found.locality),
    ):
        weights = [getattr(TASKS[when], kind)[0].weights_a for when in LENGTHS]
        total = sum(share * np.sum(rows_a * w) for share, rows_a, w in zip((1, 0.7), per_row, weights, strict=True))
        assert total == pytest.approx(float(part), rel=1e-5)
        for rows_a, w in zip(per_row, weights, strict=True):
            np.testing.assert_array_equal(np.asarray(rows_a)[w == 0], 0)
