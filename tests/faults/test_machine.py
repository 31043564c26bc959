"""A machine that fails: a full or read-only disk, a clock that runs backwards, other devices than before."""

import errno
import itertools
import os
import time
from pathlib import Path

import numpy as np
import pytest

from emsedit_jax.meta import trajectory
from emsedit_jax.run import arrays, checkpoint, cli, ledger_files, storing
from tests.faults.test_broken_off import EDITORS, calls, goes_on, killed, left
from tests.faults.test_broken_off import whole as whole
from tests.run import tiny

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full(*args, **kwargs):
    raise FULL


def begun(path):
    return tiny.flags(f"--workdir={path}", *EDITORS["emsedit"])


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_disk_that_is_full_when_the_state_is_saved(at, tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        calls(patch, checkpoint, "digests", at, full)  # inside the writing of a checkpoint
        assert tiny.call(*begun(tmp_path)) == cli.BAD_INPUT
    assert "no space left on device" in capsys.readouterr().err
    goes_on(tmp_path, "emsedit", whole)


@pytest.mark.parametrize("at", [1, 3])
def test_a_disk_that_is_full_when_the_ledger_is_written(at, tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        calls(patch, ledger_files, "file_sha256", at, full)
        assert tiny.call(*begun(tmp_path)) == cli.BAD_INPUT
    assert "no space left on device" in capsys.readouterr().err
    goes_on(tmp_path, "emsedit", whole)


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_disk_that_is_full_when_anything_is_put_in_its_place(at, tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        calls(patch, storing.os, "fsync", at, full)
        assert tiny.call(*begun(tmp_path)) == cli.BAD_INPUT
    assert "no space left on device" in capsys.readouterr().err
    goes_on(tmp_path, "emsedit", whole)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    """As a read-only disk answers; permissions alone do not stop the superuser, whom tests may run as."""

    def refuses(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refuses)
    assert tiny.call(*begun(tmp_path / "run")) == cli.BAD_INPUT
    assert "read-only file system" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_a_clock_that_runs_backwards_changes_nothing(tmp_path, whole, monkeypatch):
    clock = itertools.count(2_000_000_000, -3600)
    expected = whole("emsedit")
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    tiny.train(tmp_path / "run", *EDITORS["emsedit"])
    assert left(tmp_path / "run") == expected


@pytest.mark.parametrize("name", ["train_batch", "edit_batch"])
def test_a_run_goes_on_over_other_devices(name, tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, 3, name)
    expected = whole("emsedit")
    count = calls(monkeypatch, trajectory, name, 0, full)
    tiny.train(tmp_path, *EDITORS["emsedit"], "--config.mesh.data=2", "--config.mesh.model=2")
    assert count[0] == {"train_batch": 6, "edit_batch": 2}[name]
    summary, *_ = left(tmp_path)
    assert summary["scores"] == expected[0]["scores"]
    (tmp_path / "whole.safetensors").write_bytes(expected[1]["edits.safetensors"])
    found, wanted = (arrays.read(tmp_path / f"{one}.safetensors", "edits", "")[1] for one in ("edits", "whole"))
    for site, one in wanted.items():
        np.testing.assert_allclose(found[site], one, atol=2e-3 * np.abs(one).max())
