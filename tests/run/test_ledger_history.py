"""Ledgers of the last batches' files alone: those before go for a snapshot, what was said of them stays."""

import contextlib
import json
import shutil

import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.data.cues import Cue, EditRecord
from emsedit_jax.edit.factors import Factors
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.meta import trajectory
from emsedit_jax.run import arrays, bookkeeping, cli, edits, history, ledger, ledger_files, ledger_lines, workdir
from emsedit_jax.run.bookkeeping import Bookkeeper, lacks
from emsedit_jax.run.ledger_lines import NO_LEDGER, Mark, mark
from emsedit_jax.session import files as session_files
from emsedit_jax.types import SiteGroup
from tests.faults.test_broken_off import Killed, calls, die
from tests.fresh_programs import fresh_programs
from tests.run import tiny

__all__ = ["fresh_programs"]

BATCHES, EVERY, HISTORY = 8, 2, 3  # after the last batch: from the snapshot of the fourth on
DROPPED = [0, 0, 0, 0, 0, 2, 0, 4]
KEPT = {ledger.NAME, *map(ledger_files.name_of, (5, 6, 7, 8)), *map(ledger_files.snapshot_of, (4, 6, 8))}
BASE = Identity("a model", "0123")
SITES = (SiteGroup(8, 12, (3, 4), ("mlp.gate",) * 2, tiny.SITES),)


def steps_of(number):
    """A batch's two steps of five rows, drawn."""
    draw = np.random.default_rng(number)
    return [[tuple(draw.normal(size=(2, 5, width)).astype(np.float32) for width in (8, 12))] for _ in range(2)]


def edited(path, kept=HISTORY, upto=BATCHES, saved=lambda done: None):
    """Edits batch after batch, from the last checkpoint on that the ledger bears, one after each batch.

    `saved` stands for the checkpoint's sealing. Returns the edits, what is told of the ledger, and where it began.
    """
    seal = path / "seal.json"
    marks = [Mark.read(one) for one in json.loads(seal.read_text())] if seal.exists() else []
    there = next((one for one in reversed(marks) if not lacks(path / "edits", one)), NO_LEDGER)
    marks = [one for one in marks if one.records <= there.records]
    books = Bookkeeper(path / "edits", BASE, SITES, EVERY, kept)
    with contextlib.closing(books):
        books.begin(there.records)
        now = history.nothing(ledger.read(path / "edits"))
        for number in range(1, there.records + 1):  # (a run has them in its checkpoint)
            now = history.add(SITES, now, steps_of(number))
        for number in range(there.records + 1, upto + 1):
            parts = steps_of(number)
            now = history.add(SITES, now, parts)
            fact = EditRecord(Cue(f"Where is {number}?", "There"), (), (), f"{number}", f"row {number}")
            books.note(number, [fact], [[Factors(*sharding.put(part)) for part in step] for step in parts], {}, now)
            if number < BATCHES:
                marks.append(books.mark())
                seal.write_text(json.dumps([one._asdict() for one in marks[-2:]]))
                saved(number)
                books.saved(number)
        told, found = books.end(), books.mark()
    edits.save(path / "edits.safetensors", SITES, now, BASE, found)
    return now, told, there.records


def made(path, kept=HISTORY):
    """A finished run's folder; what is told of its ledger."""
    workdir.open_workdir(path, tiny.command(editor="ultraedit").config)
    (path / "edits").mkdir(exist_ok=True)
    _, told, _ = edited(path, kept)
    bookkeeping.drop(path / "edits")
    (path / "seal.json").unlink()
    return told


@pytest.fixture(scope="module")
def told():
    """Folder -> what is told of its ledger."""
    return {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, told):
    """A run that keeps every file."""
    path = tmp_path_factory.mktemp("whole") / "run"
    told[path] = made(path, 0)
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory, told):
    """The same run, of whose ledger the files of the last batches stay."""
    path = tmp_path_factory.mktemp("short") / "run"
    told[path] = made(path)
    return path


@pytest.fixture
def run(ran, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(ran, tmp_path / "run")


def saved(path):
    return (path / "edits.safetensors").read_bytes()


def names(path):
    return {file.name for file in (path / "edits").iterdir()}


def at(path, count=None):
    (delta_skv,) = history.deltas(ledger.read(path / "edits"), count)
    return np.asarray(delta_skv)


def said_of(path):
    """The records, but for when they were written, how they are chained and what is dropped."""
    found = ledger.read(path / "edits").records
    return [{name: value for name, value in vars(one).items() if name not in ledger_lines.UNMARKED} for one in found]


def dropped_by(path):
    return [record.dropped for record in ledger.read(path / "edits").records]


def test_files_go_and_everything_that_was_said_stays(ran, whole, told):
    assert names(ran) == KEPT
    assert len(names(whole)) == 1 + BATCHES + BATCHES // EVERY
    assert said_of(ran) == said_of(whole)
    assert saved(ran) == saved(whole)
    found = ledger.read(ran / "edits")
    assert (found.lost, found.damaged) == ("", 0)
    assert (dropped_by(ran), dropped_by(whole)) == (DROPPED, [0] * BATCHES)
    assert lacks(ran / "edits", mark(found.records)) == ""
    for path in (ran, whole):
        assert told[path]["bytes"] == sum(len(one) for one in tiny.files(path / "edits").values())


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
    np.testing.assert_array_equal(at(tmp_path / "one"), at(whole))
    assert tiny.call("--mode=merge", f"--workdir={run},{whole}", f"--to={tmp_path / 'both'}") == 0
    records = ledger.read(tmp_path / "both" / "edits").records
    assert [(one.kind, len(one.rows)) for one in records] == [("dense", 4)] + [("edit", 1)] * 12
    np.testing.assert_array_equal(at(tmp_path / "both", 5), at(whole))
    facts = [row for one in ledger.read(whole / "edits").records for row in one.rows]
    assert [row for one in records for row in one.rows] == facts + facts
    (run / "edits" / ledger_files.snapshot_of(4)).unlink()
    assert tiny.call("--mode=merge", f"--workdir={whole},{run}", f"--to={tmp_path / 'more'}") == cli.BAD_INPUT
    assert not (tmp_path / "more").exists()


def test_a_session_that_goes_on_from_it_is_saved_without_what_was_dropped(ran, tmp_path):
    (tmp_path / "edits").mkdir()
    session_files.copy(ledger.read(ran / "edits"), tmp_path / "edits", tmp_path / "none")
    assert names(tmp_path) == KEPT
    np.testing.assert_array_equal(at(tmp_path), at(ran))


# ---------------------------------------------------------------------------------------------- broken off


def goes_on(path, ran, begins):
    """The run goes on behind so many batches, and leaves what the one that was not broken off left."""
    assert edited(path)[2] == begins
    bookkeeping.drop(path / "edits")
    assert names(path) == KEPT
    assert saved(path) == saved(ran)
    assert said_of(path) == said_of(ran)
    assert dropped_by(path) == DROPPED
    np.testing.assert_array_equal(at(path), at(ran))


@pytest.mark.parametrize("upto", [5, 6, 7, 8])
def test_a_run_that_dies_goes_on_to_the_same_bits(upto, ran, tmp_path):
    edited(tmp_path, upto=upto)
    goes_on(tmp_path, ran, min(upto, BATCHES - 1))


def test_files_go_once_the_checkpoint_before_the_last_knows_it(tmp_path):
    there = {}
    edited(tmp_path, saved=lambda done: there.update({done: names(tmp_path)}))
    first = {*map(ledger_files.name_of, (1, 2))}
    assert [first <= there[done] for done in range(1, BATCHES)] == [False, True, True, True, True, True, True]
    assert dropped_by(tmp_path) == DROPPED
    assert not first & names(tmp_path)
    assert ledger_files.name_of(3) in names(tmp_path)  # the editing is not over
    assert ledger_files.snapshot_of(2) in names(tmp_path)


def test_a_run_that_dies_between_the_record_and_the_removal_removes_them_later(ran, tmp_path):
    def dies(done):
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        edited(tmp_path, saved=dies)
    assert ledger.read(tmp_path / "edits").dropped() == 2
    assert {ledger_files.name_of(1), ledger_files.name_of(2)} <= names(tmp_path)
    goes_on(tmp_path, ran, 7)


def test_a_run_that_dies_amid_the_removal_goes_on(ran, tmp_path, monkeypatch):
    gone, unlink = {ledger_files.name_of(1), ledger_files.name_of(2)}, type(tmp_path).unlink

    def dies(self, *args, **kwargs):
        unlink(self, *args, **kwargs)
        if self.name in gone:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", dies)
        with pytest.raises(Killed):
            edited(tmp_path)
    assert len(gone & names(tmp_path)) == 1
    goes_on(tmp_path, ran, 7)


def test_after_a_damaged_checkpoint_the_one_before_is_gone_on_from_twice(ran, tmp_path):
    """What was removed is told by records that no run cuts, so that nothing is missed after a second death."""
    edited(tmp_path, upto=7)
    assert ledger_files.name_of(1) not in names(tmp_path)
    marks = json.loads((tmp_path / "seal.json").read_text())
    (tmp_path / "seal.json").write_text(json.dumps(marks[:-1]))
    edited(tmp_path, upto=0)  # cuts what is behind the checkpoint, and dies
    assert len(ledger.read(tmp_path / "edits").records) == 6
    goes_on(tmp_path, ran, 6)


def test_a_file_that_is_still_needed_is_missed(ran, tmp_path):
    edited(tmp_path, upto=7)
    (tmp_path / "edits" / ledger_files.name_of(3)).unlink()
    goes_on(tmp_path, ran, 0)


def test_files_stay_where_the_snapshot_that_stands_for_them_is_damaged(whole, tmp_path, capsys):
    edited(tmp_path)
    (tmp_path / "edits" / ledger_files.snapshot_of(4)).write_bytes(b"?")
    before = names(tmp_path)
    bookkeeping.drop(tmp_path / "edits")
    assert names(tmp_path) == before
    assert "snapshot-000004.safetensors is damaged: the files that it stands for are kept" in capsys.readouterr().out
    np.testing.assert_array_equal(at(tmp_path, 5), at(whole, 5))  # from the snapshot of the second


@pytest.mark.long
def test_a_whole_run_that_dies_leaves_the_edits_of_one_that_keeps_all(tmp_path, monkeypatch, capsys):
    flags = (f"--config.num_seq={BATCHES}", "--config.dataset.n_edits=2", "--config.checkpoint.every=1")
    flags = (*flags, f"--config.ledger.snapshot_every={EVERY}")
    told = tiny.train(tmp_path / "whole", *flags, editor="ultraedit")["ledger"]
    flags = (*flags, f"--config.ledger.history={HISTORY}")
    for room, name, call in ((trajectory, "edit_batch", 7), (bookkeeping, "drop", 1)):
        with monkeypatch.context() as patch:
            calls(patch, room, name, call, die)
            with pytest.raises(Killed):
                tiny.call(*tiny.flags(f"--workdir={tmp_path / 'run'}", *flags, editor="ultraedit"))
    assert names(tmp_path / "run") > KEPT
    less = tiny.train(tmp_path / "run", *flags, editor="ultraedit")["ledger"]
    said = capsys.readouterr().out
    assert "editing: 6 of 8 batches done" in said
    assert "edits: done before" in said
    assert names(tmp_path / "run") == KEPT
    assert less["bytes"] == sum(len(one) for one in tiny.files(tmp_path / "run" / "edits").values()) < told["bytes"]
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    np.testing.assert_array_equal(at(tmp_path / "run", 5), at(tmp_path / "whole", 5))


# ---------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize("name", ["ledger.snapshot_every", "checkpoint.every"])
def test_what_it_needs_is_told(name, tmp_path, capsys):
    flags = ("--config.ledger.history=3", f"--config.{name}=0", f"--workdir={tmp_path / 'run'}")
    assert tiny.call(*tiny.flags(*flags)) == cli.BAD_INPUT
    assert f"--config.ledger.history needs --config.{name} of 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("dropped", [-1, True, 1.0, "1", None, [1], 8, 2**40])
def test_a_record_that_drops_what_there_cannot_be_is_none(ran, dropped):
    plain = ledger.read(ran / "edits").records[-1].plain() | {"dropped": dropped}
    with pytest.raises(ValueError, match="a field that no record has"):
        ledger_lines.record(plain)


def test_a_record_without_a_snapshot_drops_nothing(ran):
    plain = ledger.read(ran / "edits").records[6].plain()
    assert ledger_lines.record(plain).dropped == 0
    with pytest.raises(ValueError, match="a field that no record has"):
        ledger_lines.record(plain | {"dropped": 2})


def test_the_edits_in_the_file_say_how_far_either_ledger_went(ran, whole):
    told = [arrays.about(path / "edits.safetensors", "edits")["ledger"] for path in (ran, whole)]
    assert told[0] == told[1] == mark(ledger.read(ran / "edits").records)._asdict()
    assert told[0]["records"] == BATCHES
