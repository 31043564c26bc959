"""`--mode=eval` broken off and gone on with."""

import functools
import os
import shutil
import signal

import pytest

from emsedit_jax.measure import ask, speech
from emsedit_jax.run import cli, evaluation, keeper
from tests.run import tiny
from tests.run.broken_off import counted, power_cut

FURTHER = ("--config.eval.further", "--config.eval.generated=3", "--config.eval.fluency=2")
terminated = functools.partial(os.kill, os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def all_is_worth_it(monkeypatch):
    monkeypatch.setattr(keeper, "WORTH_S", 0.0)


@pytest.fixture(scope="module")
def asked(tmp_path_factory, quick_compiles):
    """A run's folder, scored again by an evaluation that was not broken off."""
    folder = tmp_path_factory.mktemp("runs") / "asked"
    tiny.train(folder, *FURTHER, editor="ultraedit")
    assert tiny.call("--mode=eval", f"--workdir={folder}") == 0
    return folder


@pytest.fixture
def folder(asked, tmp_path):
    """The same, not yet scored again."""
    found = shutil.copytree(asked, tmp_path / "run")
    (found / "eval.json").unlink()
    return found


def found(folder):
    summary = tiny.read(folder / "eval.json")
    return [summary[part] for part in ("scores", "intervals", "items", "edits", "digests")]


def test_an_evaluation_that_is_stopped_goes_on_where_it_was(asked, folder, monkeypatch, capsys):
    command, before = ("--mode=eval", f"--workdir={folder}"), tiny.files(folder)
    said = counted(monkeypatch, speech, "lines")
    with monkeypatch.context() as patch:  # amid the texts of the unedited model
        counted(patch, ask, "read_tokens", 1, terminated)
        assert tiny.call(*command) == cli.PREEMPTED
    told = capsys.readouterr().err
    assert f"the same command with --workdir={folder} goes on" in told
    with monkeypatch.context() as patch:  # before the last sort of questions to the edited one
        counted(patch, ask, "_drift", 1, power_cut)
        assert tiny.call(*command) == cli.INTERRUPTED
    assert not (folder / "eval.json").exists()
    assert tiny.call(*command) == 0
    assert len(said) == 2  # each model's once
    assert "unedited: done before" in capsys.readouterr().out
    assert found(folder) == found(asked)
    assert {name: text for name, text in tiny.files(folder).items() if name != "eval.json"} == before


def test_one_that_died_as_it_ended_is_not_asked_again(asked, folder, monkeypatch):
    with monkeypatch.context() as patch:
        counted(patch, evaluation, "finish", 1, power_cut)
        assert tiny.call("--mode=eval", f"--workdir={folder}") == cli.INTERRUPTED
    said = counted(monkeypatch, speech, "lines")
    assert tiny.call("--mode=eval", f"--workdir={folder}") == 0
    assert not said
    assert found(folder) == found(asked)
    assert not (folder / "eval-stages").exists()


def test_another_evaluation_begins_anew(asked, folder, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        counted(patch, speech, "texts", 1, terminated)
        assert tiny.call("--mode=eval", f"--workdir={folder}") == cli.PREEMPTED
    left = next((folder / "eval-stages").iterdir())
    said = counted(monkeypatch, speech, "lines")
    fewer = tiny.flags("--mode=eval", f"--workdir={folder}", "--config.num_seq=1", *FURTHER, editor="ultraedit")
    assert tiny.call(*fewer) == 0
    assert f"what {left} has of an evaluation with other settings, data or edits is removed" in capsys.readouterr().out
    assert len(said) == 2
    assert tiny.read(folder / "eval.json")["edits"] == 4
    assert not (folder / "eval-stages").exists()


def test_a_run_that_is_not_finished_goes_on_after_an_evaluation_was_stopped(asked, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run = tiny.flags(f"--workdir={folder}", *FURTHER, editor="ultraedit")
    with monkeypatch.context() as patch:  # the edits are there
        counted(patch, ask, "_drift", 1, power_cut)
        assert tiny.call(*run) == cli.INTERRUPTED
    stages = tiny.files(folder / "stages")
    with monkeypatch.context() as patch:
        counted(patch, speech, "texts", 1, terminated)
        assert tiny.call("--mode=eval", f"--workdir={folder}") == cli.PREEMPTED
    assert tiny.files(folder / "stages") == stages
    said = counted(monkeypatch, speech, "lines")
    assert tiny.call(*run) == 0
    assert not said
    assert tiny.read(folder / "summary.json")["scores"] == tiny.read(asked / "summary.json")["scores"]
    assert tiny.call("--mode=eval", f"--workdir={folder}") == 0
    assert len(said) == 2 - 1  # the unedited model's had been kept
    assert found(folder) == found(asked)
    assert not (folder / "eval-stages").exists()
