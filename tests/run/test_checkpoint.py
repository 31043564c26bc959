"""Checkpoints: at every moment at which a process can die, one that is whole is there."""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import orbax.checkpoint as ocp
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import storing
from emsedit_jax.run.checkpoint import Checkpoints


class Killed(BaseException):
    """Stands for a process that is no more: nothing catches it."""


def save(path, done, checkpoints=None):
    """Saves as a process does that goes on with what is there."""
    checkpoints = checkpoints or Checkpoints(path)
    checkpoints.newest()
    checkpoints.save({"state.0": np.full(3, done, np.float32)}, {"done": done})
    return checkpoints


def newest(path):
    found, wrong = Checkpoints(path).newest()
    return (found.place["done"] if found is not None else None), len(wrong)


def killed(path, done, monkeypatch, what, name):
    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(what, name, die)
        with pytest.raises(Killed):
            save(path, done)


def numbers(path):
    return sorted(int(one.name) for one in path.iterdir() if one.is_dir())


def test_deaths_before_the_seal_leave_what_was_sealed(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    for done in (1, 2, 3):
        save(path, done)
    for _ in range(3):
        killed(path, 4, monkeypatch, storing, "write_json")  # writes the seal
        assert newest(path) == (3, 1)
    save(path, 4)
    assert newest(path) == (4, 0)
    assert len(numbers(path)) == 2


def test_a_death_as_old_ones_are_removed_leaves_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    for done in (1, 2):
        save(path, done)
    killed(path, 3, monkeypatch, Checkpoints, "thin")
    assert newest(path) == (3, 0)
    save(path, 4)
    assert numbers(path) == [3, 4]


def test_damaged_ones_are_no_fallback(tmp_path):
    path = tmp_path / "kept"
    checkpoints = None
    for done in (1, 2, 3):
        checkpoints = save(path, done, checkpoints)
    (path / "3" / "_CHECKPOINT_METADATA").unlink()
    save(path, 4)  # which finds it
    assert numbers(path) == [2, 4]
    (path / "4.json").write_text("{")
    assert newest(path) == (2, 1)


def test_so_many_are_spared(tmp_path):
    path = tmp_path / "kept"
    for done in (1, 2):
        save(path, done)
    Checkpoints(path).thin(1)
    assert newest(path) == (2, 0)
    assert {one.name for one in path.iterdir()} == {"2", "2.json"}


def test_what_threads_say_of_a_failed_write_is_left_out(tmp_path, monkeypatch, caplog):
    heard = []
    logger, hook = logging.getLogger("asyncio"), lambda what: heard.append(str(what.exc_value))
    monkeypatch.setattr(sys, "unraisablehook", hook)
    monkeypatch.setattr(logger, "filters", [])  # whatever a failed write of another test has left there
    checkpoints = save(tmp_path, 1)
    assert (sys.unraisablehook, logger.filters) == (hook, [])  # nothing stays of a write that is well

    def refused(*args, **kwargs):
        say("Event loop is closed", "future: [os_error_code='27']")
        raise ValueError("Failed to write [os_error_code='27']")

    def say(late, never_asked):
        sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError(late)))
        logger.error(never_asked)

    monkeypatch.setattr(ocp.CheckpointManager, "save", refused)
    with pytest.raises(InputError, match="file too large"):
        save(tmp_path, 2, checkpoints)
    say("Event loop is closed", "future: [os_error_code='27']")  # some come to it after the write
    assert (heard, caplog.messages) == ([], [])
    say("another", "another")
    assert (heard, caplog.messages) == (["another"], ["another"])
