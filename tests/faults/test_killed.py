"""SIGKILL at random moments of a whole run: the same command goes on, and leaves the same to the last bit."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from emsedit_jax.run import arrays, history, ledger
from tests.faults.test_broken_off import LONG, left
from tests.run import tiny

FLAGS = (*LONG, "--config.ledger.snapshot_every=2", "--config.mesh.data=1")
MANY, IN_CI = 50, 2
DEADLINE_S = 300


def launched(workdir, cache, log):
    """The run as a process of its own, its compiled programs kept for the next one."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "launch.py", *tiny.flags(f"--workdir={workdir}", *FLAGS)]
    with log.open("a") as out:
        return subprocess.Popen(command, cwd=tiny.ROOT, env=os.environ | kept, stdout=out, stderr=out)


def is_begun(process, workdir):
    """Whether the run has come to its work; waits for that."""
    deadline = time.monotonic() + DEADLINE_S
    while not (workdir / "config.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def finished(workdir, cache, log):
    process = launched(workdir, cache, log)
    assert process.wait(DEADLINE_S) == 0, log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(what an uninterrupted run leaves, the seconds from its beginning to its end, the cache of its programs)."""
    folder = tmp_path_factory.mktemp("whole")
    finished(folder / "first", folder / "cache", folder / "log")  # compiles
    process = launched(folder / "run", folder / "cache", folder / "log")
    assert is_begun(process, folder / "run")
    begun = time.monotonic()
    assert process.wait(DEADLINE_S) == 0
    return left(folder / "run"), time.monotonic() - begun, folder / "cache"


@pytest.mark.parametrize("seed", [pytest.param(n, marks=pytest.mark.long if n >= IN_CI else ()) for n in range(MANY)])
def test_a_killed_run_goes_on_to_the_same_bits(seed, tmp_path, whole):
    expected, seconds, cache = whole
    draw, workdir, log = random.Random(seed), tmp_path / "run", tmp_path / "log"
    kills = 0
    for _ in range(draw.choice((1, 1, 2))):
        process = launched(workdir, cache, log)
        if is_begun(process, workdir):
            time.sleep(draw.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    finished(workdir, cache, log)
    for found, wanted in zip(left(workdir), expected, strict=True):
        assert found == wanted
    books = ledger.read(workdir / "edits")
    assert not books.lost
    assert len(books.records) == 4
    (deltas,) = history.deltas(books)
    saved = dict(zip(tiny.SITES, np.asarray(deltas), strict=True))
    assert arrays.digests(saved) == expected[0]["digests"]
    assert kills or (workdir / "summary.json").exists()
