"""The ledger of a run: what it says, that it cannot be changed unnoticed, and what its records add up to."""

import contextlib
import json
import shutil

import numpy as np
import pytest

from emsedit_jax import disk, sharding
from emsedit_jax.edit.factors import Factors
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import history, ledger, ledger_files, ledger_lines, workdir
from emsedit_jax.run.bookkeeping import Bookkeeper
from emsedit_jax.types import SiteGroup
from tests.fresh_programs import fresh_programs
from tests.run import tiny

__all__ = ["fresh_programs"]

MORE = ("--config.num_seq=4", "--config.ledger.snapshot_every=3")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of four batches in two steps each, with a snapshot after the third."""
    path = tmp_path_factory.mktemp("ledgers") / "run"
    tiny.train(path, *MORE)
    return path


@pytest.fixture
def run(ran, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(ran, tmp_path / "run")


def saved(path):
    """The edits that a run has saved, stacked as the one site group has them."""
    _, found = workdir_arrays(path)
    return np.stack([found[name] for name in tiny.SITES])


def workdir_arrays(path):
    from emsedit_jax.run import arrays

    return arrays.read(path / "edits.safetensors", "edits", "")


def whole(found, at=None):
    (delta_skv,) = history.deltas(found, at)
    return np.asarray(delta_skv)


def test_the_ledger_says_what_was_written_when(ran):
    found = ledger.read(ran / "edits")
    assert [record.kind for record in found.records] == ["edit"] * 4
    assert not found.lost
    rows = [row for record in found.records for row in record.rows]
    facts = json.loads((tiny.DATA / "zsre_eval.json").read_text())[:16]
    assert [(row["prompt"], row["answer"]) for row in rows] == [(fact["src"], fact["ans"]) for fact in facts]
    assert rows[5]["id"] == "zsre_eval.json row 5"
    metrics = [row for row in tiny.rows(ran) if row["phase"] == "edit"]
    assert [record.scores["ES"] for record in found.records] == [row["ES"] for row in metrics]
    summary = tiny.read(ran / "summary.json")
    told = {"batches": 4, "bytes": sum(len(one) for one in tiny.files(ran / "edits").values())}
    assert summary["ledger"] == told | {"content": ledger_lines.mark(found.records).content}


def test_its_records_add_up_to_the_runs_edits_to_the_last_bit(ran, run):
    found = ledger.read(run / "edits")
    np.testing.assert_array_equal(whole(found), saved(ran))
    (run / "edits" / ledger_files.snapshot_of(3)).unlink()
    np.testing.assert_array_equal(whole(found), saved(ran))


@pytest.mark.parametrize("batches", [2, 3])
def test_the_edits_at_any_point_are_those_of_a_run_that_ended_there(ran, tmp_path, batches):
    """Editing alone: trained networks are those of the longer run."""
    there = (f"--config.num_seq={batches}", f"--config.editor.load={ran}")
    tiny.train(tmp_path / "short", *there)
    tiny.train(tmp_path / "long", "--config.num_seq=4", f"--config.editor.load={ran}")
    np.testing.assert_array_equal(whole(ledger.read(tmp_path / "long" / "edits"), batches), saved(tmp_path / "short"))


def test_undoing_is_a_record_and_leaves_the_others(run):
    found = ledger.read(run / "edits")
    (now,), write = history.undo(found, [2, 4])
    write()
    found = ledger.read(run / "edits")
    assert [record.kind for record in found.records] == ["edit"] * 4 + ["undo"]
    assert [record.number for record in found.active()] == [1, 3]
    np.testing.assert_array_equal(whole(found), np.asarray(now))
    alone = [whole(ledger.read(run / "edits"), at).astype(np.float64) for at in range(5)]
    np.testing.assert_allclose(np.asarray(now), alone[1] + alone[3] - alone[2], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(whole(found, 4), saved(run))  # what was in force before
    with pytest.raises(InputError, match=r"no batch 2 in force; those in force are 1, 3"):
        history.undo(found, [2])
    with pytest.raises(InputError, match="no batch is named"):
        history.undo(found, [])


def harmed(path, place, bit=0x04):
    found = bytearray(path.read_bytes())
    found[place] ^= bit
    path.write_bytes(bytes(found))


def test_a_damaged_record_ends_what_is_believed(run):
    path = run / "edits" / ledger.NAME
    lines = path.read_bytes().split(b"\n")
    harmed(path, len(lines[0]) + len(lines[1]) + 2 + len(lines[2]) // 2)
    found = ledger.read(run / "edits")
    assert len(found.records) == 1
    assert "record 2 is damaged; it and 2 after it are not used" in found.lost


@pytest.mark.parametrize("change", [b'"answer": "', b'"number": 2', b'"time": "2'])
def test_a_record_that_was_changed_by_hand_is_noticed(run, change):
    path = run / "edits" / ledger.NAME
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(change, change[:-1] + b"3" if change[-1:] != b'"' else change + b"not ")
    path.write_bytes(b"\n".join(lines))
    assert len(ledger.read(run / "edits").records) == 1


def test_a_line_cut_off_is_dropped_and_written_over(run):
    path = run / "edits" / ledger.NAME
    path.write_bytes(path.read_bytes()[:-40])
    found = ledger.read(run / "edits")
    assert len(found.records) == 3
    assert "the last line is cut off; the 3 records before it are used" in found.lost
    history.undo(found, [1])[1]()
    again = ledger.read(run / "edits")
    assert not again.lost
    assert [record.kind for record in again.records] == ["edit"] * 3 + ["undo"]


def test_a_damaged_file_is_told_unless_a_snapshot_has_what_was_in_it(run):
    found = ledger.read(run / "edits")
    harmed(run / "edits" / ledger_files.name_of(2), -5)
    np.testing.assert_array_equal(whole(found), saved(run))
    with pytest.raises(InputError, match=r"000002\.safetensors: .* batch 2 is lost .*--mode=undo --batches=2"):
        whole(found, 2)
    harmed(run / "edits" / ledger_files.snapshot_of(3), -5)
    with pytest.raises(InputError, match="batch 2 is lost"):
        whole(found)
    assert [record.kind for record in found.records] == ["edit"] * 4


def test_edits_of_another_model_are_refused(run):
    found = ledger.read(run / "edits")
    ledger.check_base(found, found.base._replace(name="under another name"))
    with pytest.raises(InputError, match=r"holds edits of .*, this run has other"):
        ledger.check_base(found, Identity("other", "0123"))


def test_two_ledgers_become_one_and_contradictions_are_listed(run, tmp_path):
    tiny.train(tmp_path / "other", *MORE, "--config.dataset.rows=12:", "--config.seed=1")
    one, other = ledger.read(run / "edits"), ledger.read(tmp_path / "other" / "edits")
    history.undo(one, [2])[1]()
    made, now = history.merged(one, other, tmp_path / "both")
    assert [len(record.rows) for record in made.records] == [4] * 7
    again = ledger.read(tmp_path / "both")
    assert not again.lost
    np.testing.assert_array_equal(whole(again), np.asarray(now[0]))
    expected = whole(one).astype(np.float64) + whole(other)
    np.testing.assert_allclose(np.asarray(now[0]), expected, rtol=1e-3, atol=1e-5)
    told = history.conflicts(one, other)
    answers = {}
    for source in (one, other):
        for record in source.active():
            for row in record.rows:
                answers.setdefault(row["subject"] or row["prompt"], {}).setdefault(source.path, set()).add(
                    row["answer"]
                )
    odd = [about for about, sides in answers.items() if len(sides) == 2 and len(set.union(*sides.values())) > 1]
    assert odd
    assert {line.split(":")[0] for line in told} == {about.split(":")[0] for about in odd}


def test_a_history_made_into_one_record(run, tmp_path):
    found = ledger.read(run / "edits")
    made, _ = history.compacted(found, tmp_path / "one")
    assert [(record.kind, len(record.rows)) for record in ledger.read(tmp_path / "one").records] == [("dense", 16)]
    np.testing.assert_array_equal(whole(made), saved(run))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no run with a ledger, which would be .*/ledger.jsonl"),
        ("", "is damaged, or no ledger"),
        ("[]\n", "is damaged, or no ledger"),
        ('{"format": "another", "sites": []}\n', "no ledger of this program"),
        ("[" * 100_000, "is damaged, or no ledger"),
    ],
)
def test_what_is_no_ledger(tmp_path, text, said):
    if text is not None:
        (tmp_path / ledger.NAME).write_text(text)
    with pytest.raises(InputError, match=said):
        ledger.read(tmp_path)


def test_a_file_outside_the_folder_is_never_named(run):
    """Even where the chain is sound."""
    path = run / "edits" / ledger.NAME
    found = ledger.read(run / "edits")
    body = found.records[-1].plain() | {"number": 5}
    del body["hash"]
    good = path.read_text()
    for file, count in (("000004.safetensors", 5), ("../edits/000001.safetensors", 4)):
        one = body | {"file": file}
        path.write_text(good + json.dumps(one | {"hash": ledger_lines.hash_of(found.last, one)}) + "\n")
        assert len(ledger.read(run / "edits").records) == count


def test_a_forged_ledger_is_not_made_room_for(tmp_path):
    wide = SiteGroup(ledger.MOST_WIDE, ledger.MOST_WIDE, (0,), ("mlp.gate",), ("model.layers.0.mlp.gate_proj",))
    forged = ledger.create(tmp_path / "forged", Identity("a model", "0123"), (wide,))
    with pytest.raises(InputError, match=r"holds edits of 1,125,899.9 GB, and this machine has"):
        history.deltas(ledger.read(forged.path))


def test_weight_changes_are_mapped_and_not_copied(run):
    found = ledger.read(run / "edits")
    for step in ledger_files.load(found, found.records[0]):
        assert all(isinstance(part, np.memmap) for parts in step for part in parts if part is not None)


def test_the_disk_has_a_file_by_name_before_the_line_that_names_it(run, monkeypatch):
    found, order = ledger.read(run / "edits"), []
    steps = ledger_files.load(found, found.records[0])
    synced, appended = disk.sync_folder, ledger.Ledger._write
    monkeypatch.setattr(disk, "sync_folder", lambda path: (order.append(path), synced(path)))
    monkeypatch.setattr(ledger.Ledger, "_write", lambda self, line: (order.append("line"), appended(self, line)))
    books = Bookkeeper(run / "edits", found.base, found.sites, 0)
    with contextlib.closing(books):
        books.begin(4)
        books.note(5, [], [[Factors(*sharding.put(part)) for part in step] for step in steps], {}, ())
        assert books.mark().records == 5
    assert order == [run / "edits", "line"]


def test_writing_that_fails_is_one_line(run, monkeypatch):
    found = ledger.read(run / "edits")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*no space left on device"):
        found.append(ledger.UNDO, undone=[1])
    assert workdir.Workdir(run).ledger == run / "edits"
