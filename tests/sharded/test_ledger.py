"""The ledger over devices: as few numbers as on one, which make the edits again."""

import dataclasses

import jax
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.edit import apart, capture, sites
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import params as lm_params
from emsedit_jax.meta import trajectory
from emsedit_jax.run import history, ledger_files
from tests import tiny_lm
from tests.sharded.conftest import MESHES
from tests.tiny_lm import LENGTHS, assert_close, host

CONFIG = dataclasses.replace(tiny_lm.CONFIG, d=32, f=48)  # keys wider than there are rows
SITES = sites.resolve(CONFIG, ["model.layers.{1,2}.mlp.gate_proj", "model.layers.2.mlp.down_proj"])
REL = 1e-4  # sums in another order
ALL = [pytest.param(name, marks=() if name in ("2x4", "8x1") else pytest.mark.long) for name in MESHES]


def written(name, keeps=True):
    """(edits, shift of each step, its factors on the host) of a batch; `keeps`: a ledger is kept."""
    over = {"parts": sharding.size("data"), "lanes": sharding.row_lanes()}
    (batch,) = dataclasses.replace(tiny_lm.plan([0], LENGTHS), **over)[0].edit
    weights = sharding.put(tiny_lm.weights(CONFIG), lm_params.placement(CONFIG))
    editor = tiny_lm.editor(name, config=CONFIG, sites=SITES)
    given = no_edit(SITES), trajectory.init(editor, 0), capture.prompts(CONFIG, SITES, weights, [batch])
    deltas, _, steps = trajectory.edit_batch(editor, weights, *given, shifts=keeps, factors=keeps)
    held = ledger_files.gathered([one.factors for one in steps]) if keeps else []
    return host(deltas), host([one.shift for one in steps]), held


def product(step):
    """The shift of a step's factors."""
    return tuple(np.einsum("snk,snv->skv", x_snk, y_snv) for x_snk, y_snv in step)


@pytest.mark.parametrize("mesh", ALL, indirect=True)
@pytest.mark.parametrize("name", ["emsedit", "ultraedit"])
def test_a_ledger_over_devices_is_no_larger_and_makes_the_shifts_of_one(name, mesh, tmp_path):
    alone, shifts, few = written(name)
    with jax.set_mesh(mesh):
        there, _, held = written(name)
        again = no_edit(SITES)
        for step in held:
            again = history.add(SITES, again, [step])
        again = host(again)
    for path, steps in (("alone", few), ("there", held)):
        ledger_files.write(tmp_path / path, steps)
    assert (tmp_path / "there").stat().st_size <= (tmp_path / "alone").stat().st_size
    assert_close([product(step) for step in held], shifts, REL)
    assert_close(there, alone, REL)
    jax.tree.map(np.testing.assert_array_equal, again, there)


@pytest.mark.parametrize("mesh", ["2x4", "8x1"], indirect=True)
def test_edits_over_devices_are_the_same_with_a_ledger_and_without(mesh):
    with jax.set_mesh(mesh):
        kept, left = (written("emsedit", keeps)[0] for keeps in (True, False))
    jax.tree.map(np.testing.assert_array_equal, kept, left)


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
