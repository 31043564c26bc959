"""SIGKILL at random moments of every stage of a run: the same command goes on, and leaves the same to the last bit."""

import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from emsedit_jax.run import arrays, history, ledger
from tests.faults.test_broken_off import EDITORS, left
from tests.run import tiny

MANY = 50
TRIES = 5  # to hit a stage: a machine may be quicker, or slower, than when the stages were timed
DEADLINE_S = 600
STAGES = {  # what is there once each begins; "start": the process, which loads the program, the model and the facts
    "start": "",
    "score unedited": "config.json",
    "train": "stages/unedited.json",
    "edit": "stages/trained.json",
    "score edited": "stages/edits.json",
    "write": "stages/edited.json",
}


class Whole(NamedTuple):
    """A run that was let be."""

    left: Any  # the files that count, and the rest's names
    spans: dict[str, float]  # seconds of each stage
    batches: int


def launched(workdir, editor, cache):
    """The run as a process of its own, its compiled programs kept for the next one."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    flags = (*EDITORS[editor], "--config.ledger.snapshot_every=2", "--config.ledger.history=1")
    command = [sys.executable, "launch.py", *tiny.flags(f"--workdir={workdir}", *flags, editor=editor)]
    with workdir.with_suffix(".log").open("a") as out:
        return subprocess.Popen(command, cwd=tiny.ROOT, env=os.environ | kept, stdout=out, stderr=out)


def is_begun(process, file):
    """Whether there is the file, for which it waits; not if the process has ended before."""
    deadline = time.monotonic() + DEADLINE_S
    while not file.exists():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return True


def finished(workdir, editor, cache):
    process = launched(workdir, editor, cache)
    assert process.wait(DEADLINE_S) == 0, workdir.with_suffix(".log").read_text()


def timed(workdir, editor, cache):
    """A run whose stages are timed."""
    process, begins = launched(workdir, editor, cache), [time.monotonic()]
    for file in list(STAGES.values())[1:]:
        assert is_begun(process, workdir / file), workdir.with_suffix(".log").read_text()
        begins.append(time.monotonic())
    assert process.wait(DEADLINE_S) == 0
    return dict(zip(STAGES, np.diff([*begins, time.monotonic()]).tolist(), strict=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """Uninterrupted runs, made when asked for."""
    known = {}

    def made(editor):
        if editor not in known:
            folder = tmp_path_factory.mktemp(editor)
            finished(folder / "first", editor, cache)  # compiles
            spans = timed(folder / "run", editor, cache)
            batches = len(ledger.read(folder / "run" / "edits").records)
            known[editor] = Whole(left(folder / "run"), spans, batches)
        return known[editor]

    return made


@pytest.fixture(scope="module")
def tally(request):
    """How often a stage of an editor was hit; told at the end."""
    found = collections.Counter()
    yield found
    told = ", ".join(f"{stage} of {editor} {count}" for (editor, stage), count in sorted(found.items()))
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f"\nkilled: {told or 'nothing'}")


def stage_of(workdir):
    """The stage that a run died in: the last one that had begun."""
    if (workdir / "summary.json").exists():  # what the stages left may be gone
        return "write"
    return [stage for stage, file in STAGES.items() if (workdir / file).exists() or not file][-1]


def is_killed_in(stage, workdir, process, delay):
    """Whether SIGKILL found the process alive, so long after the stage had begun, and the stage still going on."""
    try:
        if not STAGES[stage] or is_begun(process, workdir / STAGES[stage]):
            time.sleep(delay)
    finally:
        process.kill()
    return process.wait() == -signal.SIGKILL and stage_of(workdir) == stage


def kill(stage, workdir, launch, span, draw):
    """Kills a run at a random moment of the stage."""
    before = workdir.with_name("before")
    if workdir.exists():
        shutil.copytree(workdir, before)
    for tries in range(TRIES):
        if is_killed_in(stage, workdir, launch(), draw.uniform(0, span / (1 + tries))):
            shutil.rmtree(before, ignore_errors=True)
            return
        shutil.rmtree(workdir, ignore_errors=True)  # the stage was over
        if before.exists():
            shutil.copytree(before, workdir)
    pytest.fail(f"{stage}: missed {TRIES} times")


def check_killed(stages, editor, workdir, whole, cache, draw, tally):
    """A run that is killed in each of the stages goes on, and leaves what the whole one left."""
    for stage in stages:
        kill(stage, workdir, lambda: launched(workdir, editor, cache), whole.spans[stage], draw)
        tally[editor, stage] += 1
    finished(workdir, editor, cache)
    for found, wanted in zip(left(workdir), whole.left, strict=True):
        assert found == wanted
    books = ledger.read(workdir / "edits")
    assert not books.lost
    assert len(books.records) == whole.batches
    (deltas,) = history.deltas(books)
    saved = dict(zip(tiny.SITES, np.asarray(deltas), strict=True))
    assert arrays.digests(saved) == whole.left[0]["digests"]


@pytest.mark.parametrize("stages", [("train", "edit", "write"), pytest.param(tuple(STAGES), marks=pytest.mark.long)])
def test_a_run_that_is_killed_in_its_stages_goes_on_to_the_same_bits(stages, tmp_path, whole, cache, tally):
    check_killed(stages, "emsedit", tmp_path / "run", whole("emsedit"), cache, random.Random(0), tally)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(MANY))
def test_a_killed_run_goes_on_to_the_same_bits(seed, tmp_path, whole, cache, tally):
    draw, names = random.Random(seed), list(STAGES)
    first = seed % len(names)
    others = draw.sample(names[first + 1 :], draw.choice((0, 0, 1)) * (first + 1 < len(names)))
    editor = "malmen" if seed % 7 < 2 else "emsedit"
    check_killed([names[first], *others], editor, tmp_path / "run", whole(editor), cache, draw, tally)
