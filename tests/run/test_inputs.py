"""Digests of what a run takes in."""

import contextlib

import jax

from emsedit_jax import sharding
from emsedit_jax.meta import trajectory
from emsedit_jax.run import inputs
from emsedit_jax.run.exam import prepare_exam
from emsedit_jax.run.prepare import prepare
from tests.run import tiny


def digests(data, model):
    """Those of a run over so many by so many devices."""
    mesh = sharding.make_mesh(data, model)
    with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
        run = prepare(tiny.command("--config.eval.further", "--config.train.holdout=1").config)
        return inputs.digests(run, prepare_exam(run), trajectory.init(run.editor, 0, run.learning))


def test_the_devices_change_no_part():
    alone = digests(1, 1)
    assert digests(2, 2) == alone
    assert len(set(alone.values())) == len(alone) - 1  # there are neither items of ability nor networks of a file
