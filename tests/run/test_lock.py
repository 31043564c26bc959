"""Two programs in one folder."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import lock
from tests.run import tiny

HOLD = """
import sys, pathlib
from emsedit_jax.run import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(path):
    """A process that works in the folder until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


@pytest.fixture
def other(tmp_path):
    with holding(tmp_path) as process:
        yield process


def test_who_comes_second_is_told_who_is_there(tmp_path, other):
    with pytest.raises(InputError, match=f"is in use by process {other.pid} on .*wait for it"), lock.held(tmp_path):
        pass
    (tmp_path / lock.HOLDER).write_text("{")
    with pytest.raises(InputError, match="is in use; wait"), lock.held(tmp_path):
        pass


def test_a_process_that_dies_frees_the_folder(tmp_path, other):
    other.kill()
    other.wait()
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.HOLDER).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_one_that_cannot_be_is_told(tmp_path):
    with lock.held(tmp_path / "a" / "b"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"), lock.held(tmp_path / "file" / "b"):
        pass


def test_a_dead_program_s_lock_is_taken_and_a_living_one_s_stays(tmp_path, other):
    there = sorted(tmp_path.iterdir())
    with lock.tried(tmp_path) as kept:
        assert not kept
    assert sorted(tmp_path.iterdir()) == there
    other.kill()
    other.wait()
    with lock.tried(tmp_path) as kept:
        assert kept
    assert list(tmp_path.iterdir()) == []


def test_what_fails_under_a_lock_that_was_tried_is_raised(tmp_path):
    with pytest.raises(InputError, match="of the block"), lock.tried(tmp_path):
        raise InputError("of the block")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_shown_and_not_cleaned_while_somebody_finishes_it(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "stages" / "edits.checkpoints").mkdir(parents=True)
    (folder / "report.html").unlink()
    with holding(folder) as process:
        before = tiny.files(folder)
        assert tiny.call(*tiny.flags(f"--workdir={folder}")) == 0
        assert "this run is finished" in capsys.readouterr().out
        assert tiny.files(folder) == before
        assert (folder / "stages" / "edits.checkpoints").is_dir()
        process.kill()
        process.wait()
    assert tiny.call(*tiny.flags(f"--workdir={folder}")) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in finished.iterdir())
