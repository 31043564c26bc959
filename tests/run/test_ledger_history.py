"""A ledger of the last batches alone: files go for a snapshot, what was said of them stays, and the edits are the same."""

import contextlib
import json
import shutil

import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.edit.factors import Factors
from emsedit_jax.errors import InputError
from emsedit_jax.meta import trajectory
from emsedit_jax.run import arrays, bookkeeping, cli, course, history, ledger, ledger_files, ledger_lines
from emsedit_jax.run.bookkeeping import Bookkeeper, lacks
from emsedit_jax.run.ledger_lines import mark
from tests.faults.test_broken_off import Killed, calls, die
from tests.fresh_programs import fresh_programs
from tests.run import tiny

__all__ = ["fresh_programs"]

BATCHES = 8
RUN = (
    f"--config.num_seq={BATCHES}",
    "--config.dataset.n_edits=2",
    "--config.checkpoint.every=1",
    "--config.ledger.snapshot_every=2",
)
SHORT = (*RUN, "--config.ledger.history=3")  # after the last batch: from the snapshot of the fourth on
KEPT = {ledger.NAME, *map(ledger_files.name_of, (5, 6, 7, 8)), *map(ledger_files.snapshot_of, (4, 6, 8))}


def run_flags(path, flags=SHORT):
    return tiny.flags(f"--workdir={path}", *flags, editor="ultraedit")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that keeps every file."""
    path = tmp_path_factory.mktemp("whole") / "run"
    tiny.train(path, *RUN, editor="ultraedit")
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The same run, of whose ledger the files of the last batches stay."""
    path = tmp_path_factory.mktemp("short") / "run"
    tiny.train(path, *SHORT, editor="ultraedit")
    return path


@pytest.fixture
def run(ran, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(ran, tmp_path / "run")


def saved(path):
    return (path / "edits.safetensors").read_bytes()


def names(path):
    return {file.name for file in (path / "edits").iterdir()}


def at(path, count):
    (delta_skv,) = history.deltas(ledger.read(path / "edits"), count)
    return np.asarray(delta_skv)


def said_of(path):
    """The records, but for when they were written and how they are chained."""
    return [{**vars(one), "time": "", "hash": "", "dropped": 0} for one in ledger.read(path / "edits").records]


def test_files_go_and_everything_that_was_said_stays(ran, whole):
    assert names(ran) == KEPT
    assert said_of(ran) == said_of(whole)
    assert saved(ran) == saved(whole)
    found = ledger.read(ran / "edits")
    assert (found.lost, found.damaged) == ("", 0)
    assert [record.dropped for record in found.records] == [0, 0, 0, 0, 0, 2, 0, 4]
    assert lacks(ran / "edits", mark(found.records)) == ""
    told = tiny.read(ran / "summary.json")["ledger"]
    assert told["bytes"] == sum(len(one) for one in tiny.files(ran / "edits").values())
    assert told["bytes"] < tiny.read(whole / "summary.json")["ledger"]["bytes"]


def test_lines_of_a_ledger_that_keeps_all_are_as_they_were(whole):
    fields = {"number", "kind", "rows", "time", "scores", "file", "bytes", "sha256", "snapshot", "undone", "hash"}
    for line in (whole / "edits" / ledger.NAME).read_text().splitlines()[1:]:
        assert set(json.loads(line)) == fields


@pytest.mark.parametrize("count", [4, 5, 6, 7, 8])
def test_the_edits_at_every_point_that_is_left_are_those_of_the_whole_ledger(ran, whole, count):
    np.testing.assert_array_equal(at(ran, count), at(whole, count))


def test_a_point_that_is_not_left_is_told(ran):
    with pytest.raises(InputError, match=r"edits goes back to batch 4 at most: .* dropped \(ledger\.history\)\.$"):
        at(ran, 3)


@pytest.mark.parametrize("batches", ["6", "5,7", "6-", "5-"])
def test_what_is_taken_back_is_what_the_whole_ledger_takes_back(run, whole, tmp_path, batches):
    other = shutil.copytree(whole, tmp_path / "whole")
    for path in (run, other):
        assert tiny.call("--mode=undo", f"--workdir={path}", f"--batches={batches}") == 0
    assert saved(run) == saved(other)
    (run / "edits.safetensors").unlink()
    assert tiny.call("--mode=replay", f"--workdir={run}") == 0
    assert saved(run) == saved(other)


def test_a_batch_whose_file_was_dropped_is_not_taken_back(run, capsys):
    before = tiny.files(run)
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=3,7") == cli.BAD_INPUT
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "batch 3 can no more be taken back, its file was dropped (ledger.history); batches from 5 on can." in line
    assert tiny.files(run) == before


def test_replaying_gives_the_bits_of_the_whole_ledger(run, whole):
    (run / "edits.safetensors").unlink()
    assert tiny.call("--mode=replay", f"--workdir={run}") == 0
    assert saved(run) == saved(whole)


def test_a_damaged_snapshot_that_stands_for_files_is_told(run, whole, capsys):
    path = run / "edits" / ledger_files.snapshot_of(4)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    np.testing.assert_array_equal(at(run, 7), at(whole, 7))  # from the snapshot of the sixth
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=5") == cli.BAD_INPUT
    assert "snapshot-000004.safetensors, which batches 1-4 were dropped for, is damaged" in capsys.readouterr().err
    assert "snapshot-000004" in lacks(run / "edits", mark(ledger.read(run / "edits").records))


def test_merging_and_making_one_of_it(run, whole, tmp_path):
    assert tiny.call("--mode=compact", f"--workdir={run}", f"--to={tmp_path / 'one'}") == 0
    np.testing.assert_array_equal(at(tmp_path / "one", 1), at(whole, 8))
    assert tiny.call("--mode=merge", f"--workdir={run},{whole}", f"--to={tmp_path / 'both'}") == 0
    records = ledger.read(tmp_path / "both" / "edits").records
    assert [(one.kind, len(one.rows)) for one in records] == [("dense", 8)] + [("edit", 2)] * 12
    np.testing.assert_array_equal(at(tmp_path / "both", 5), at(whole, 8))
    facts = [row for one in ledger.read(whole / "edits").records for row in one.rows]
    assert [row for one in records for row in one.rows] == facts + facts
    (run / "edits" / ledger_files.snapshot_of(4)).unlink()
    assert tiny.call("--mode=merge", f"--workdir={whole},{run}", f"--to={tmp_path / 'more'}") == cli.BAD_INPUT
    assert not (tmp_path / "more").exists()


# ---------------------------------------------------------------------------------------------- broken off


def goes_on(path, ran):
    """The run goes on, and leaves what the one that was not broken off left."""
    assert tiny.call(*run_flags(path)) == 0
    assert names(path) == KEPT
    assert saved(path) == saved(ran)
    assert [one | {"dropped": 0} for one in said_of(path)] == said_of(ran)
    assert [one.dropped for one in ledger.read(path / "edits").records] == [0, 0, 0, 0, 0, 2, 0, 4]


def broken_off(path, monkeypatch, room, name, at):
    with monkeypatch.context() as patch:
        calls(patch, room, name, at, die)
        with pytest.raises(Killed):
            tiny.call(*run_flags(path))


@pytest.mark.parametrize("batch", [6, 7, 8])
def test_a_run_that_dies_goes_on_to_the_same_bits(batch, ran, tmp_path, monkeypatch, capsys):
    broken_off(tmp_path / "run", monkeypatch, trajectory, "edit_batch", batch)
    goes_on(tmp_path / "run", ran)
    assert f"editing: {batch - 1} of {BATCHES} batches done" in capsys.readouterr().out


def test_a_run_that_dies_between_the_record_and_the_removal_removes_them_later(ran, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    broken_off(path, monkeypatch, bookkeeping.Bookkeeper, "saved", 7)
    assert ledger.read(path / "edits").dropped() == 2
    assert {ledger_files.name_of(1), ledger_files.name_of(2)} <= names(path)
    goes_on(path, ran)
    assert "editing: 7 of 8 batches done" in capsys.readouterr().out


def test_a_run_that_dies_amid_the_removal_goes_on(ran, tmp_path, monkeypatch, capsys):
    path, unlink = tmp_path / "run", type(tmp_path).unlink

    def dies(self, *args, **kwargs):
        unlink(self, *args, **kwargs)
        if self.name in (ledger_files.name_of(1), ledger_files.name_of(2)):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", dies)
        with pytest.raises(Killed):
            tiny.call(*run_flags(path))
    assert len({ledger_files.name_of(1), ledger_files.name_of(2)} & names(path)) == 1
    goes_on(path, ran)
    assert "editing: 7 of 8 batches done" in capsys.readouterr().out


@pytest.mark.parametrize("place", [(bookkeeping, "drop"), (course.scoring, "ask_all")])
def test_files_that_the_end_of_editing_left_go_when_the_run_goes_on(place, ran, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    room, name = place
    broken_off(path, monkeypatch, room, name, {"drop": 1, "ask_all": 2}[name])
    assert (names(path) == KEPT) == (name == "ask_all")
    goes_on(path, ran)
    assert "edits: done before" in capsys.readouterr().out


def test_after_a_damaged_checkpoint_the_one_before_is_gone_on_from_twice(ran, tmp_path, monkeypatch, capsys):
    """What was removed is told by records that no run cuts, so that nothing is missed after a second death."""
    path = tmp_path / "run"
    broken_off(path, monkeypatch, trajectory, "edit_batch", 8)
    (path / "stages" / "edits.checkpoints" / "7.json").write_text("{")
    broken_off(path, monkeypatch, trajectory, "edit_batch", 1)
    goes_on(path, ran)
    assert capsys.readouterr().out.count("editing: 6 of 8 batches done") == 2


def test_files_stay_where_the_snapshot_that_stands_for_them_is_damaged(whole, tmp_path, capsys):
    path = shutil.copytree(whole / "edits", tmp_path / "edits")
    found = ledger.read(path)
    last = found.records[-1]
    steps = ledger_files.load(found, last)
    with contextlib.closing(Bookkeeper(path, found.base, found.sites, 2, 3)) as books:
        books.begin(7)
        (path / ledger_files.snapshot_of(4)).write_bytes(b"?")
        parts = [[Factors(*sharding.put(part)) for part in step] for step in steps]
        books.note(8, [], parts, {}, history.deltas(found))
        assert books.mark().records == 8
        before = {file.name for file in path.iterdir()}
        books.saved(8)
        books.saved(8)
    assert {file.name for file in path.iterdir()} == before
    assert "snapshot-000004.safetensors is damaged: the files that it stands for are kept" in capsys.readouterr().out
    assert ledger.read(path).dropped() == 4
    np.testing.assert_array_equal(np.asarray(history.deltas(ledger.read(path))[0]), at(whole, 8))


# ---------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize("name", ["ledger.snapshot_every", "checkpoint.every"])
def test_what_it_needs_is_told(name, tmp_path, capsys):
    assert tiny.call(*run_flags(tmp_path / "run", (*SHORT, f"--config.{name}=0"))) == cli.BAD_INPUT
    assert f"--config.ledger.history needs --config.{name} of 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("dropped", [-1, True, 1.0, "1", None, [1], 8, 2**40])
def test_a_record_that_drops_what_there_cannot_be_is_none(ran, dropped):
    found = ledger.read(ran / "edits").records[-1]
    plain = found.plain() | {"dropped": dropped}
    with pytest.raises((ValueError, TypeError)):
        ledger_lines.record(plain)


def test_a_record_without_a_snapshot_drops_nothing(ran):
    plain = ledger.read(ran / "edits").records[6].plain()
    assert ledger_lines.record(plain).dropped == 0
    with pytest.raises(ValueError, match="a field that no record has"):
        ledger_lines.record(plain | {"dropped": 2})


def test_the_edits_in_the_file_say_how_far_either_ledger_went(ran, whole):
    told = [arrays.about(path / "edits.safetensors", "edits")["ledger"] for path in (ran, whole)]
    assert told[0] == told[1] == mark(ledger.read(ran / "edits").records)._asdict()
