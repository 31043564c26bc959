"""Two programs in one folder."""

import json
import os
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


@pytest.fixture
def other(tmp_path):
    """A process that works in the folder until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


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


def test_a_dead_program_s_lock_is_swept_and_a_living_one_s_stays(tmp_path):
    lock.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for name in (lock.LOCK, lock.HOLDER):
        (tmp_path / name).write_text("")
    lock.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with lock.held(tmp_path):
        there = sorted(tmp_path.iterdir())
        code = f"from pathlib import Path; from emsedit_jax.run import lock; lock.sweep(Path({str(tmp_path)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tiny.ROOT)
        assert sorted(tmp_path.iterdir()) == there
