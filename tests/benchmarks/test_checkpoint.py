"""The benchmark of checkpoints, on a tiny model: what is saved when, and that saving is a part of the run."""

import json
import math

import pytest

from benchmarks import checkpoint
from emsedit_jax.run import cli, keeper
from emsedit_jax.run.keeper import Keeper
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["quick_compiles"]

SMALL = ("--config.train.holdout=1", "--config.editor.n_epochs=2", "--config.train.patience=2")


def test_saving_is_counted_and_is_a_part_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "WORTH_S", math.inf)  # no others, however slow the machine is
    config = tiny.command(*SMALL).config
    save, digests = Keeper.save, checkpoint.checkpoint.digests
    often, never = (checkpoint.measure(config, every, tmp_path / str(every)) for every in (1, 0))
    assert (often["every"], often["checkpoints"]) == (1, 2 * 2 + 1 + 1)  # training; editing; asking
    assert 0 < often["saving_s"] < often["run_s"]
    assert often["share"] == pytest.approx(often["saving_s"] / often["run_s"], rel=0.02)
    networks = (tmp_path / "1" / "hypernet.safetensors").stat().st_size
    assert often["largest_mb"] * 1e6 > 2 * networks  # with the best ones, and what else there is
    assert (never["checkpoints"], never["saving_s"], never["largest_mb"], never["share"]) == (0, 0.0, 0.0, 0.0)
    assert (Keeper.save, checkpoint.checkpoint.digests) == (save, digests)
    assert config.checkpoint.every == 50


def test_the_command_makes_its_runs_and_prints_two(monkeypatch, capsys):
    made = []

    def measure(config, every, folder):
        made.append((config, every))
        return every

    monkeypatch.setattr(checkpoint, "measure", measure)
    assert cli.exit_code(checkpoint.main, ["checkpoint", *tiny.flags("--config.checkpoint.every=7")]) == 0
    config, _ = made[0]
    assert (config.train.holdout, config.editor.n_epochs, config.train.patience) == (1, 12, 12)
    told = json.loads(capsys.readouterr().out)
    assert ([every for _, every in made], told["runs"]) == ([0, 7, 1], [7, 1])
    assert cli.exit_code(checkpoint.main, ["checkpoint"]) == 0
    assert made[-1][0].editor.iters == 4  # the quickstart's
    assert cli.exit_code(checkpoint.main, ["checkpoint", *tiny.flags(editor="ultraedit")]) == cli.BAD_INPUT
