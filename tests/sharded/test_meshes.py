"""Every editor over eight devices: edits, statistics, gradients and scores are those of one device."""

import dataclasses
from typing import ClassVar

import jax
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.data.scoring import plan_scoring
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import params as lm_params
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.judge import judge
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.score import score_edits
from emsedit_jax.measure.until import said_until
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.methods import METHODS
from tests import tiny_lm
from tests.meta import tiny_training
from tests.sharded.conftest import MESHES
from tests.tiny_lm import CONFIG, SITES, assert_close, host

LENGTHS = ((5, 2), (7, 3), (5, 1), (4, 3), (6, 2), (8, 1))
REL = 1e-4  # sums in another order
SMALL = 8  # rows at once: more are streamed
ALL = [pytest.param(name, marks=() if name == "2x4" else pytest.mark.long) for name in MESHES]


def tasks(pass_tokens=None):
    """A batch and the one before it, packed for the mesh in force."""
    over = {"parts": sharding.size("data"), "lanes": sharding.row_lanes()}
    plan = dataclasses.replace(tiny_lm.plan([0, 1], LENGTHS, pass_tokens=pass_tokens), **over)
    return [plan[1], plan[0]]


def placed():
    """The tiny model's weights."""
    return sharding.put(tiny_lm.weights(), lm_params.placement(CONFIG))


def learnt(name, rows_at_once=4096, pass_tokens=None):
    """(edits, statistics, gradients or networks, losses) of a training batch."""
    editor, how = tiny_lm.editor(name, rows_at_once=rows_at_once), tiny_training.learning(name)
    state, weights = sharding.put(tiny_training.fresh(editor, how)), placed()
    given = tasks(pass_tokens)[: how.back_depth]
    edit, lessons = tiny_lm.given(weights, given[0].edit), tiny_training.lessons(weights, given, how.time_decay)
    deltas, state, aux = trajectory.train_batch(editor, how, weights, no_edit(SITES), state, edit, lessons, shifts=True)
    losses = [(loss.equiv, loss.locality, loss.drift) for loss in aux.losses]
    learned = state.thetas if how.update_every == "step" else state.grads
    return host((deltas, state.stats, learned, losses, [step.shift for step in aux.steps]))


@pytest.mark.parametrize("mesh", ALL, indirect=True)
@pytest.mark.parametrize("name", ["emsedit", "mend"])  # a solve and none; a trajectory and step by step
def test_training_over_devices_is_that_of_one(name, mesh):
    alone = learnt(name)
    with jax.set_mesh(mesh):
        assert_close(learnt(name), alone, REL, floor=1e-3)


@pytest.mark.parametrize("mesh", ["2x4"], indirect=True)
@pytest.mark.parametrize("name", ["emsedit", "mend"])
def test_streamed_training_over_devices_is_that_of_one(name, mesh):
    alone = learnt(name, SMALL, pass_tokens=16)
    with jax.set_mesh(mesh):
        assert_close(learnt(name, SMALL, pass_tokens=16), alone, REL, floor=1e-3)


@pytest.mark.parametrize("mesh", ["2x4"], indirect=True)
def test_no_device_holds_what_it_shares(mesh):
    editor = tiny_lm.editor("emsedit", rows_at_once=SMALL)
    assert METHODS["emsedit"].rule.ridge is not None
    with jax.set_mesh(mesh):
        weights = placed()
        given = tiny_lm.given(weights, tasks(16)[0].edit)
        deltas, _, steps = trajectory.edit_batch(editor, weights, no_edit(SITES), trajectory.init(editor, 0), given)
        assert len(given.batches) > 1
    of_gate, of_down = (one.addressable_shards[0].data.shape for one in deltas)
    assert of_gate == (2, CONFIG.d, CONFIG.f // 4)  # (sites, k, v): values over the model
    assert of_down == (1, CONFIG.f // 4, CONFIG.d)  # keys over the model
    mlp, attention = weights["layers"][0]["mlp"], weights["layers"][0]["attn"]
    assert mlp["down"]["w"].addressable_shards[0].data.shape == (CONFIG.f // 4, CONFIG.d)
    assert attention["k"]["w"].addressable_shards[0].data.shape == (CONFIG.d, CONFIG.g * CONFIG.e)  # 2 heads: whole
    assert given.below(0).addressable_shards[0].data.shape[0] * 2 == given.below(0).shape[0]
    assert len(steps) == 2


@pytest.mark.parametrize("mesh", ALL, indirect=True)
def test_scores_over_devices_are_those_of_one(mesh):
    deltas = host(tiny_lm.random_deltas())

    def scores():
        weights = placed()
        plan = dataclasses.replace(tiny_lm.plan([0, 1], LENGTHS), parts=sharding.size("data"))
        edited = sharding.put(deltas, tuple(map(sharding.spec_of_edit, SITES)))
        model = Edited(CONFIG, SITES, weights, edited, PrefixStore(CONFIG, SITES, weights, 16))
        return list(score_edits(model, plan_scoring(plan, 64), [0, 1]))

    alone = scores()
    with jax.set_mesh(mesh):
        there = scores()
    for one, other in zip(there, alone, strict=True):
        assert one.keys() == other.keys()
        for name, shares in other.items():
            np.testing.assert_array_equal(one[name], shares)


@pytest.mark.parametrize("mesh", ALL, indirect=True)
def test_what_is_judged_and_said_over_devices_is_that_of_one(mesh):
    deltas, items = host(tiny_lm.random_deltas()), tiny_lm.prompts([*LENGTHS, (3, 1), (30, 4)])

    def found():
        weights = placed()
        edited = sharding.put(deltas, tuple(map(sharding.spec_of_edit, SITES)))
        model = Edited(CONFIG, SITES, weights, edited, PrefixStore(CONFIG, SITES, weights, 0))
        prompts = [one.tokens for one in items]
        said = said_until(model, Spelling(), prompts, [], 5)
        return judge(model, [*items, *items[:3]], 32), said

    alone, said_alone = found()
    with jax.set_mesh(mesh):
        there, said_there = found()
    np.testing.assert_allclose(there.logprob, alone.logprob, rtol=REL)
    assert there.greedy.tolist() == alone.greedy.tolist()
    assert said_there == said_alone


class Spelling:
    """A tokenizer for numbers."""

    added_tokens_encoder: ClassVar[dict[str, int]] = {}
    all_special_ids = ()

    def decode(self, tokens, skip_special_tokens):
        return " ".join(map(str, tokens))
