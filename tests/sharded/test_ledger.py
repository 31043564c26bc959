"""The ledger over devices: as few numbers as on one, which make the edits again."""

import dataclasses

import jax
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.data.packing import PackShape
from emsedit_jax.edit import apart, capture, sites
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import params as lm_params
from emsedit_jax.meta import trajectory
from emsedit_jax.run import history, ledger_files
from tests import tiny_lm
from tests.sharded.conftest import MESHES
from tests.tiny_lm import assert_close, host

CONFIG = dataclasses.replace(tiny_lm.CONFIG, d=32, f=48)  # keys wider than there are rows
SITES = sites.resolve(CONFIG, ["model.layers.{1,2}.mlp.gate_proj", "model.layers.2.mlp.down_proj"])
LENGTHS = ((5, 2),) * 8  # prompt and answer tokens: eight devices have a prompt each
REL = 1e-4  # sums in another order
ALL = [pytest.param(name, marks=() if name == "2x4" else pytest.mark.long) for name in MESHES]


def written(keeps=True):
    """(edits, shift of each step, its factors on the host) of a batch of 16 rows; `keeps`: a ledger is kept."""
    parts = sharding.size("data")
    shape = PackShape(b=2, t=24, a=16 // parts, n=16 // parts)
    (batch,) = dataclasses.replace(tiny_lm.plan([0], LENGTHS, shape), parts=parts)[0].edit
    weights = sharding.put(tiny_lm.weights(CONFIG), lm_params.placement(CONFIG))
    editor = tiny_lm.editor("emsedit", iters=1, config=CONFIG, sites=SITES)
    given = no_edit(SITES), trajectory.init(editor, 0), capture.prompts(CONFIG, SITES, weights, [batch])
    deltas, _, steps = trajectory.edit_batch(editor, weights, *given, shifts=keeps, factors=keeps)
    held = ledger_files.gathered([one.factors for one in steps]) if keeps else []
    return host(deltas), host([one.shift for one in steps]), held


def product(step):
    """The shift of a step's factors."""
    return tuple(np.einsum("snk,snv->skv", x_snk, y_snv) for x_snk, y_snv in step)


@pytest.mark.parametrize("mesh", ALL, indirect=True)
def test_a_ledger_over_devices_is_no_larger_and_makes_the_shifts_of_one(mesh, tmp_path):
    alone, shifts, few = written()
    with jax.set_mesh(mesh):
        there, _, held = written()
        again = host(history.add(SITES, no_edit(SITES), held))
        left, _, _ = written(keeps=False)
    for path, steps in (("alone", few), ("there", held)):
        ledger_files.write(tmp_path / path, steps)
    assert (tmp_path / "there").stat().st_size <= (tmp_path / "alone").stat().st_size
    assert_close([product(step) for step in held], shifts, REL)
    assert_close(there, alone, REL)
    jax.tree.map(np.testing.assert_array_equal, again, there)
    jax.tree.map(np.testing.assert_array_equal, left, there)


def test_columns_of_the_rows_come_in_the_order_of_those_of_the_shift():
    group = SITES[0]
    rng = np.random.default_rng(0)
    x_snk, y_snv = (rng.normal(size=(2, 16, width)).astype(np.float32) for width in (group.k, group.v))
    with jax.set_mesh(sharding.make_mesh(*MESHES["8x1"])):
        assert apart.pieces_of(group, 16) > 1
        found = jax.jit(apart.solved, static_argnums=0)(group, x_snk, y_snv, np.ones(2, np.float32))
        assert found.rows_snv is not None
        rows_snv = np.asarray(found.rows_snv)
    assert_close(np.einsum("snk,snv->skv", x_snk, rows_snv), np.asarray(found.delta_skv), 1e-5)
