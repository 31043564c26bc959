"""A machine that fails: a full or read-only disk, a clock that runs backwards, numbers that are none, other devices."""

import errno
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from emsedit_jax.meta import trajectory
from emsedit_jax.run import arrays, checkpoint, cli, history, ledger, ledger_files, storing
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


@pytest.mark.long
def test_a_system_that_takes_no_more_of_a_checkpoint(tmp_path, whole):
    """It refuses the libraries that write checkpoints, and no function stands in for them."""
    limited = ["bash", "-c", 'ulimit -f 16; exec "$@"', "-", sys.executable, "launch.py", *begun(tmp_path)]  # 16 KB
    for _ in range(2):  # what the first has left does not harm the second
        done = subprocess.run(limited, cwd=tiny.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == cli.BAD_INPUT, done.stderr
        assert re.search(r"error: cannot write \S*/stages/trained\.checkpoints: file too large; free it", done.stderr)
        assert "Traceback" not in done.stderr  # the threads of these libraries would say much before that
    assert not (tmp_path / "summary.json").exists()
    goes_on(tmp_path, "emsedit", whole)


def allow(folder, to_write):
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o755 if path.is_dir() else 0o644) if to_write else (0o555 if path.is_dir() else 0o444))


POWERLESS = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: to write and read against permissions
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP, which counts from the next program on
        sys.exit("it cannot be dropped")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def by_somebody(*args):
    """A process whom permissions stop, even if it is the superuser's."""
    return tiny.python(*(["-c", POWERLESS] if os.geteuid() == 0 else []), *args)


def test_a_run_whose_folder_has_become_read_only(tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, 3)
    before = tiny.files(tmp_path)
    allow(tmp_path, to_write=False)
    try:
        tried = by_somebody("-c", f"open({str(tmp_path / 'new')!r}, 'w')")
        if "Permission denied" not in tried.stderr:
            pytest.skip(f"permissions do not stop the superuser here {tried.stderr}")
        done = by_somebody("launch.py", *begun(tmp_path))
    finally:
        allow(tmp_path, to_write=True)
    assert done.returncode == cli.BAD_INPUT, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "permission denied" in line
    assert "Traceback" not in done.stderr
    assert tiny.files(tmp_path) == before
    goes_on(tmp_path, "emsedit", whole)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    """As a disk answers that is read-only as a whole."""

    def refuses(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refuses)
    assert tiny.call(*begun(tmp_path / "run")) == cli.BAD_INPUT
    assert "read-only file system" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_a_clock_that_runs_backwards_changes_nothing(tmp_path, whole, monkeypatch):
    """Each look at the calendar is an hour before the last; the clock that counts seconds never goes back."""
    clock, told = itertools.count(2_000_000_000, -3600), time.strftime
    whole("emsedit")
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "strftime", lambda words, at=None: told(words, at or time.localtime(next(clock))))
    killed(tmp_path, monkeypatch, 3, "edit_batch")
    goes_on(tmp_path, "emsedit", whole)
    books = ledger.read(tmp_path / "edits")
    times = [record.time for record in books.records]
    assert times == sorted(set(times), reverse=True)
    assert tiny.call("--mode=undo", f"--workdir={tmp_path}", "--batches=3-") == 0
    assert [record.number for record in ledger.read(tmp_path / "edits").active()] == [1, 2]


def poison(monkeypatch, name, at):
    """In one batch, the number `at`, the model computes with weights that are no numbers."""
    original, count = getattr(trajectory, name), itertools.count(1)

    def poisoned(*args, **kwargs):
        place = {"train_batch": 2, "edit_batch": 1}[name]
        if next(count) == at:
            weights = jax.tree.map(lambda one: one * np.nan, args[place])
            args = (*args[:place], weights, *args[place + 1 :])
        return original(*args, **kwargs)

    monkeypatch.setattr(trajectory, name, poisoned)


@pytest.mark.parametrize(
    ("name", "at", "start", "kept"),
    [
        ("train_batch", 6, "train batch 5 of trajectory 1, step 0", "hypernet.safetensors"),
        ("edit_batch", 3, "edit batch 2, step 0", "edits.safetensors"),
    ],
)
def test_gradients_that_are_no_numbers_in_the_middle(name, at, start, kept, tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        poison(patch, name, at)
        assert tiny.call(*begun(tmp_path)) == cli.BAD_INPUT
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {start}")
    assert " is nan" in line
    assert line.endswith(f"What was good before is in {tmp_path}: {kept}.")
    _, found = arrays.read(tmp_path / kept, "edits" if name == "edit_batch" else "networks", "")
    assert all(np.isfinite(one).all() for one in found.values())
    if name == "edit_batch":
        books = ledger.read(tmp_path / "edits")
        assert [record.number for record in books.active()] == [1, 2]
        (deltas,) = history.deltas(books)
        np.testing.assert_array_equal(np.stack([found[site] for site in tiny.SITES]), deltas)
    goes_on(tmp_path, "emsedit", whole)


@pytest.mark.parametrize("name", [pytest.param("train_batch", marks=pytest.mark.long), "edit_batch"])
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
