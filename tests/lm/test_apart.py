"""Prompts' rows and answers' rows apart give what all rows of the rectangle give, with less work."""

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.packing import PackShape
from emsedit_jax.data.tokens import TOKEN_RULES
from emsedit_jax.edit import capture, sites
from emsedit_jax.lm import decoder
from emsedit_jax.measure import score
from emsedit_jax.meta import gradient
from tests import jaxprs, tiny_lm
from tests.quick_compiles import quick_compiles
from tests.tiny_lm import CONFIG

__all__ = ["quick_compiles"]

ITEMS = tiny_lm.prompts([(5, 2), (7, 3), (5, 2), (4, 3), (1, 4)])  # the last has no row before its answer's
LABELS = sum(len(item.labels) for item in ITEMS)
SHAPE = PackShape(b=2, t=24, a=16, n=40, p=24)
FULL = PackShape(b=2, t=24, a=24, n=40, p=8)  # some of the prompts' tokens lie behind the answers' rows
PLAIN = "one after the other"
FAMILIES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "parallel": {"parallel": True},
    "post norms": {"post_norms": True},
    "no gate": {"gated": False},
    "near layers": {"window": 3, "windowed": (0, 2)},
}
MODULES = (
    ("1.mlp.up_proj",),
    ("2.mlp.down_proj", "2.self_attn.o_proj"),
    ("0.self_attn.v_proj", "2.mlp.up_proj"),
)


def scene(family: str, modules: tuple[str, ...], rule: str, shape: PackShape = SHAPE):
    config = dataclasses.replace(CONFIG, **FAMILIES[family])
    places = sites.resolve(config, [f"model.layers.{name}" for name in modules])
    rng = np.random.default_rng(0)
    deltas = tuple(jnp.asarray(0.1 * rng.normal(size=(len(g.layers), g.k, g.v)), jnp.float32) for g in places)
    return config, places, tiny_lm.weights(config), deltas, tiny_lm.packed(ITEMS, shape, rule=rule)


def close(one, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), one, other)


@functools.partial(jax.jit, static_argnums=(0, 1))
def apart(config, places, params, deltas, batch, probes):
    prefix_md = capture.prefix(config, places, params, batch)
    x_ad, keys = decoder.answer_states(config, places, params, deltas, prefix_md, batch, probes)
    return decoder.logits(config, params, x_ad[:LABELS]), keys


@functools.partial(jax.jit, static_argnums=(0, 1))
def together(config, places, params, deltas, batch, probes):
    where = batch.positions_bt, batch.segments_bt
    x_btd = decoder.prefix(config, params, decoder.lowest_layer(places), batch.tokens_bt, *where)
    x_btd, keys = decoder.suffix(config, places, params, deltas, x_btd, *where, probes, batch.capture_at_n)
    at_a = batch.answer_at_a[:LABELS]
    return decoder.logits(config, params, x_btd.reshape(-1, config.d)[at_a]), keys


CASES = (
    *((PLAIN, MODULES[2], rule) for rule in TOKEN_RULES),
    *((PLAIN, modules, "ans") for modules in MODULES[:2]),
    *((family, MODULES[1], rule) for family in FAMILIES if family != PLAIN for rule in ("ans", "all")),
)


@pytest.mark.parametrize(
    ("family", "modules", "rule", "shape"),
    [*((*case, SHAPE) for case in CASES), *((PLAIN, MODULES[1], rule, FULL) for rule in ("ans", "all"))],
)
def test_logits_keys_and_value_gradients_are_the_same(family, modules, rule, shape):
    config, places, params, deltas, batch = scene(family, modules, rule, shape)
    probes = tuple((jnp.zeros((SHAPE.n, g.v)),) * len(g.layers) for g in places)
    found = {}
    for way in (apart, together):
        logits_aV, pull, keys = jax.vjp(
            functools.partial(way, config, places, params, deltas, batch), probes, has_aux=True
        )
        grads = [one_nv for group in pull(jnp.cos(logits_aV))[0] for one_nv in group]
        found[way] = logits_aV, keys, grads
    close(found[apart], found[together])
    assert max(float(jnp.abs(one).max()) for one in found[together][2]) > 1e-3
    unused = [one[..., ~batch.captured_n, :] for one in (*found[apart][1], *found[apart][2])]
    assert not any(np.any(one) for one in unused)


def test_the_full_shape_is_full():
    batch = tiny_lm.packed(ITEMS, FULL)
    assert batch.prompt_at_p.max() < batch.tokens_bt.size
    over = batch.answer_at_a[LABELS:]
    assert (over < batch.tokens_bt.size).sum() == 9
    assert batch.positions_bt.ravel()[over[:9]].min() > 0  # prompts' first tokens are not among them


@pytest.mark.parametrize(("family", "shape"), [*((family, SHAPE) for family in FAMILIES), (PLAIN, FULL)])
def test_gradients_of_the_edits_are_the_same(family, shape):
    """They reach through the prompts' rows, too."""
    config, places, params, deltas, batch = scene(family, MODULES[2], "ans", shape)
    found = []
    for way in (apart, together):
        loss = lambda deltas, way=way: jnp.sum(jnp.sin(way(config, places, params, deltas, batch, None)[0]))  # noqa: E731
        found.append(jax.grad(loss)(deltas))
    close(*found)
    assert max(float(jnp.abs(one).max()) for one in found[1]) > 1e-3


def by_rows(call, *args):
    """Rows -> how many products of so many rows with a matrix a program has."""
    shapes = (one.outvars[0].aval.shape for one in jaxprs.products(call, *args))
    return collections.Counter(shape[0] for shape in shapes if len(shape) == 2)


def counted(rule: str):
    shape = PackShape(b=2, t=24, a=16, n=40, p=27)  # sizes that no width of the model has
    config, places, params, deltas, batch = scene(PLAIN, ("0.self_attn.q_proj",), rule)
    batch = tiny_lm.packed(ITEMS, shape, rule=rule)
    prefix_md = capture.prefix(config, places, params, batch)
    whole = (
        functools.partial(capture.capture, config, places, params),
        functools.partial(score.score_batch, config, places, params),
    )
    return [by_rows(one, deltas, prefix_md, batch) for one in whole]


FORWARD, LAST = 2 * 7, 3  # q, k, v, o, gate, up, down of two layers; q, k, v of the last


def test_in_the_last_layer_prompts_rows_are_there_for_keys_and_values():
    _, scored = counted("ans")
    assert scored == {27 + 16: FORWARD + LAST, 16: 4 + 1}  # o, gate, up, down, head


def test_captured_answers_are_pulled_back_through_their_own_rows_alone():
    captured, _ = counted("ans")
    assert captured[27 + 16] == FORWARD + LAST  # forward, together
    forward, backward = 4, 1 + 2 * 7 + 4  # o, gate, up, down; head and all, but q, k, v of the lowest layer
    assert captured[16] == forward + backward
    assert captured[CONFIG.vocabulary] == 1  # the head, whose logits have the vocabulary first
    assert 27 not in captured


def test_captured_prompts_rows_are_pulled_back_through():
    captured, _ = counted("all")
    assert captured[27 + 16] > 2 * FORWARD


@pytest.mark.parametrize("rule", ["ans", "all"])
@pytest.mark.parametrize("program", [capture.capture, gradient.add_equiv])
def test_no_row_is_scattered(program, rule):
    """Which XLA would do row by row on a CPU."""
    config, places, params, deltas, batch = scene(PLAIN, MODULES[1], rule)
    more = (1.0, gradient.by_site(deltas)) if program is gradient.add_equiv else ()
    given = params, deltas, capture.prefix(config, places, params, batch), batch, *more
    found = list(jaxprs.equations("scatter-add", functools.partial(program, config, places), *given))
    assert [one.outvars[0].aval.shape for one in found] == []
