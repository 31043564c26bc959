"""Edits and their ledger go together, whatever a program died at and whatever a disk lost."""

import json
import shutil

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import anchor, arrays, cli, history, ledger, ledger_lines, restore, workdir
from tests.fresh_programs import fresh_programs
from tests.run import tiny

__all__ = ["fresh_programs"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of three batches of four facts."""
    path = tmp_path_factory.mktemp("anchored") / "run"
    tiny.train(path, "--config.num_seq=3", editor="ultraedit")
    return path


@pytest.fixture
def run(ran, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(ran, tmp_path / "run")


class Killed(BaseException):
    """Stands for a process that is no more: nothing catches it."""


def dies_after(monkeypatch, count):
    """The program dies when the ledger has got so many lines more."""
    written, lines = ledger.Ledger._write, []

    def write(self, line):
        written(self, line)
        lines.append(line)
        if len(lines) == count:
            raise Killed

    monkeypatch.setattr(ledger.Ledger, "_write", write)


def in_force(run):
    """The edits that exports, scores and the harness go on with."""
    (delta_skv,) = restore.restore(workdir.saved_config(run), workdir.Workdir(run)).deltas
    return np.asarray(delta_skv)


def in_file(run):
    _, found = arrays.read(run / "edits.safetensors", "edits", "")
    return np.stack([found[name] for name in tiny.SITES])


def in_ledger(run, at=None):
    (delta_skv,) = history.deltas(ledger.read(run / "edits"), at)
    return np.asarray(delta_skv)


def test_what_is_taken_back_stays_so_when_the_program_dies_at_it(run, monkeypatch, capsys):
    before = in_file(run)
    with monkeypatch.context() as patch:
        dies_after(patch, 1)
        with pytest.raises(Killed):
            tiny.call("--mode=undo", f"--workdir={run}", "--batches=2")
    np.testing.assert_array_equal(in_file(run), before)
    without = in_ledger(run)
    assert not np.array_equal(without, before)
    np.testing.assert_array_equal(in_force(run), without)
    assert "edits.safetensors is older than record 4 of its ledger" in capsys.readouterr().out
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=2") == cli.BAD_INPUT
    said = capsys.readouterr()
    assert "it is made anew" in said.out
    assert "2 names no batch in force; those are 1, 3" in said.err
    np.testing.assert_array_equal(in_file(run), without)
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=3") == 0
    np.testing.assert_array_equal(in_file(run), in_ledger(run, 1))
    assert "older" not in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["merge", "compact"])
def test_a_death_at_a_new_ledger_leaves_nothing_that_looks_like_one(run, ran, tmp_path, monkeypatch, mode):
    to = tmp_path / "made"
    flags = f"--mode={mode}", f"--workdir={run},{ran}" if mode == "merge" else f"--workdir={run}", f"--to={to}"
    with monkeypatch.context() as patch:
        dies_after(patch, 2)  # the first line, and a batch
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            tiny.call(*flags)
    (half,) = tmp_path.glob(".made.partial-*")
    assert not to.exists()
    assert tiny.call(*flags) == 0
    assert not half.exists()
    np.testing.assert_array_equal(in_force(to), in_ledger(to))


def cut(run, count):
    path = run / "edits" / ledger.NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 1 + count]))


@pytest.mark.parametrize("known", ["edits.safetensors", "summary.json"])
@pytest.mark.parametrize("left", [0, 2])
def test_a_ledger_that_lost_its_last_lines_is_not_taken_for_whole(run, tmp_path, capsys, known, left):
    cut(run, left)
    for name in {"edits.safetensors", "summary.json"} - {known}:
        (run / name).unlink()
    before = tiny.files(run)
    gone = f"ends after record {left} of 3; what came after it is not used"
    for mode in (("--mode=undo", "--batches=1"), ("--mode=replay",)):
        assert tiny.call(*mode, f"--workdir={run}") == cli.BAD_INPUT
        assert gone in capsys.readouterr().err
    assert tiny.files(run) == before
    assert tiny.call("--mode=compact", f"--workdir={run}", f"--to={tmp_path / 'rest'}") == 0
    assert gone in capsys.readouterr().out
    np.testing.assert_array_equal(in_ledger(tmp_path / "rest"), in_ledger(run))


def test_edits_that_are_whole_are_used_and_what_the_ledger_lost_is_told(run, capsys):
    cut(run, 2)
    np.testing.assert_array_equal(in_force(run), in_file(run))
    assert "ends after record 2 of 3" in capsys.readouterr().out
    (run / "edits" / ledger.NAME).write_text("{}\n")
    np.testing.assert_array_equal(in_force(run), in_file(run))
    assert "is damaged, or no ledger of this program" in capsys.readouterr().out
    shutil.rmtree(run / "edits")
    np.testing.assert_array_equal(in_force(run), in_file(run))
    assert "edits is gone" in capsys.readouterr().out


def forged(run):
    """Another answer in the second record, with every hash put right."""
    path = run / "edits" / ledger.NAME
    header, *records = map(json.loads, path.read_text().splitlines())
    records[1]["rows"][0]["answer"] += " not"
    last, lines = header["hash"], [header]
    for record in records:
        del record["hash"]
        last = ledger_lines.hash_of(last, record)
        lines.append(record | {"hash": last})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_another_ledger_does_not_go_with_the_edits(run):
    forged(run)
    assert not ledger.read(run / "edits").lost
    folder = workdir.Workdir(run)
    for ask in (lambda: anchor.read(folder), lambda: in_force(run)):
        with pytest.raises(InputError, match=r"is not the ledger that .*edits\.safetensors was written along with"):
            ask()
    folder.edits.unlink()
    with pytest.raises(InputError, match=r"is not the ledger that .*summary\.json was written along with"):
        anchor.read(folder)


def test_edits_of_an_earlier_version_are_made_anew(run):
    folder = workdir.Workdir(run)
    about, found = arrays.read(folder.edits, "edits", "")
    del about["ledger"]
    arrays.write(folder.edits, found, "edits", about)
    with pytest.raises(
        InputError, match=r"does not say how far its ledger went; remove edits\.safetensors, and --mode="
    ):
        in_force(run)
    folder.edits.unlink()
    before = in_ledger(run)
    assert tiny.call("--mode=replay", f"--workdir={run}") == 0
    np.testing.assert_array_equal(in_force(run), before)


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_ledger_is_the_remedy_for_a_lost_file_of_edits(run, damage, capsys):
    before, path = in_file(run), run / "edits.safetensors"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert tiny.call("--mode=eval", f"--workdir={run}") == cli.BAD_INPUT
    assert "--mode=replay makes it of the ledger" in capsys.readouterr().err
    assert tiny.call("--mode=replay", f"--workdir={run}") == 0
    np.testing.assert_array_equal(in_file(run), before)
