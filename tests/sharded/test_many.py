"""Batch mode over eight devices: thousands of facts at once, whose rows never come together on a device."""

import jax
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.data.batching import KINDS, EditPlan, share_shapes
from emsedit_jax.edit import stream
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import params as lm_params
from emsedit_jax.meta import trajectory
from tests import tiny_lm
from tests.tiny_lm import CONFIG, SITES, assert_close, host

FACTS = 16384
TOKENS = 1024  # of a pass
REL = 1e-4


def edits(count: int):
    """(edits, statistics) of two steps that write so many made-up facts at once, and their answers' tokens."""
    rng = np.random.default_rng(0)
    items = tiny_lm.prompts([(int(rng.integers(3, 8)), int(rng.integers(1, 4))) for _ in range(count)])
    parts = sharding.size(sharding.DATA)
    of_kind = {kind: [items if kind == "edit" else items[:2]] for kind in KINDS}
    rows = np.arange(count, dtype=np.int32)[None]
    plan = EditPlan(rows, {}, 2, "ans", [[]], of_kind, TOKENS // parts, parts)
    plan = share_shapes(plan)[0]
    weights = sharding.put(tiny_lm.weights(), lm_params.placement(CONFIG))
    editor = tiny_lm.editor("emsedit", rows_at_once=128)
    prompts = tiny_lm.given(weights, plan.batches(0, "edit"))
    deltas, state, _ = trajectory.edit_batch(editor, weights, no_edit(SITES), trajectory.init(editor, 0), prompts)
    return host((deltas, state.stats)), sum(len(item.labels) for item in items)


@pytest.mark.parametrize("count", [256, pytest.param(FACTS, marks=pytest.mark.long)])
@pytest.mark.parametrize("mesh", ["2x4"], indirect=True)
def test_many_facts_over_devices_are_written_as_on_one_and_never_gathered(mesh, count, monkeypatch):
    expected, answers = edits(count)
    assert [int(one.count) for one in expected[1][0]] == [2 * answers, answers]  # two sites of a shape, one of another
    held = []  # rows of a chunk, and those of them that a device has

    def watched(trace):
        there = together(trace)
        for one in map(jax.numpy.asarray, (*there.keys, *there.grads)):
            held.append((one.shape[1], one.sharding.shard_shape(one.shape)[1]))
        return there

    together = stream.together
    monkeypatch.setattr(stream, "together", watched)
    with jax.set_mesh(mesh):
        found, _ = edits(count)
    assert_close(found, expected, REL)
    assert all(2 * own == rows for rows, own in held)
    assert max(rows for rows, _ in held) <= TOKENS
    assert sum(rows for rows, _ in held) >= 2 * 4 * answers  # two steps, keys and gradients of two shapes
