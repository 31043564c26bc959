"""Taking edits back, merging runs and making one change of many, by the command line."""

import json
import shutil

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import arrays, cli, history, ledger, lock, revise, storing
from tests.fresh_programs import fresh_programs
from tests.run import tiny

__all__ = ["fresh_programs"]

MORE = ("--config.num_seq=4",)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of four batches of four facts."""
    path = tmp_path_factory.mktemp("revised") / "run"
    tiny.train(path, *MORE, editor="ultraedit")
    return path


@pytest.fixture
def run(ran, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(ran, tmp_path / "run")


def saved(path):
    return arrays.read(path / "edits.safetensors", "edits", "")[1]


def by_ledger(path):
    (delta_skv,) = history.deltas(ledger.read(path / "edits"))
    return dict(zip(tiny.SITES, np.asarray(delta_skv), strict=True))


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_batches_are_taken_back_and_the_rest_is_scored_again(run, capsys):
    before = saved(run)
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=2,4") == 0
    said = capsys.readouterr().out
    assert said.count("undone") == 8
    assert "8 facts in batches 1, 3; --mode=eval scores them" in said
    assert not any(np.array_equal(before[name], found) for name, found in saved(run).items())
    same(saved(run), by_ledger(run))
    assert tiny.call("--mode=eval", f"--workdir={run}") == 0
    assert storing.read_json(run / "eval.json", "")["digests"] == arrays.digests(saved(run))


def test_going_back_to_a_point_gives_the_edits_of_that_point(run, tmp_path):
    tiny.train(tmp_path / "short", "--config.num_seq=2", editor="ultraedit")
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=3-") == 0
    same(saved(run), saved(tmp_path / "short"))


def test_a_damaged_file_of_edits_is_made_anew(run, capsys):
    before = tiny.files(run)
    (run / "edits.safetensors").write_bytes(b"?")
    assert tiny.call("--mode=replay", f"--workdir={run}") == 0
    assert "edits.safetensors: batches 1-4" in " ".join(capsys.readouterr().out.split())
    assert tiny.files(run) == before


def test_two_runs_become_one_that_can_be_scored_and_exported(run, tmp_path, capsys):
    tiny.train(tmp_path / "other", *MORE, "--config.dataset.rows=12:", editor="ultraedit")
    both = tmp_path / "both"
    capsys.readouterr()
    assert tiny.call("--mode=merge", f"--workdir={run},{tmp_path / 'other'}", f"--to={both}") == 0
    said = capsys.readouterr().out
    assert "32 facts in 8 batches" in said
    same(saved(both), by_ledger(both))
    one, other = saved(run), saved(tmp_path / "other")
    for name, found in saved(both).items():
        np.testing.assert_allclose(found, one[name].astype(np.float64) + other[name], rtol=1e-4, atol=1e-6)
    assert tiny.call("--mode=eval", f"--workdir={both}") == 0
    assert tiny.call("--mode=export", f"--workdir={both}", f"--to={tmp_path / 'model'}") == 0


def test_what_two_runs_answer_differently_is_told(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(revise, "SHOWN", 3)
    rows = tiny.read(tiny.DATA / "zsre_eval.json")[:8]
    for row in rows[1:5]:
        row["ans"] = "Something else"
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    given = f"--config.dataset.valid_path={tmp_path / 'rows.json'}"
    tiny.train(tmp_path / "other", given, editor="ultraedit")
    capsys.readouterr()
    to = tmp_path / "both"
    assert tiny.call("--mode=merge", f"--workdir={run},{tmp_path / 'other'}", f"--to={to}") == 0
    said = " ".join(capsys.readouterr().out.split())
    listed = (to / "conflicts.txt").read_text().splitlines()
    assert [line for line in listed if line.startswith(f"{rows[3]['subject']}: {rows[3]['src']!r} -> ")]
    assert {row["subject"] for row in rows[1:5]} <= {line.split(": ")[0] for line in listed}
    assert said.count(f" in {tmp_path / 'other'}") == 3
    assert f"conflict {listed[2]}" in said
    assert f"and {len(listed) - 3} more, all of them in {to / 'conflicts.txt'}" in said


def test_many_batches_become_one_change(run, tmp_path, capsys):
    assert tiny.call("--mode=compact", f"--workdir={run}", f"--to={tmp_path / 'one'}") == 0
    assert "16 facts in 1 batches" in capsys.readouterr().out
    same(saved(tmp_path / "one"), saved(run))
    same(by_ledger(tmp_path / "one"), saved(run))


def test_a_damaged_file_leaves_everything_as_it_was(run, capsys):
    path = run / "edits" / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = tiny.files(run)
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=4") == cli.BAD_INPUT
    assert "batch 1 is lost" in capsys.readouterr().err
    assert tiny.files(run) == before
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=1") == 0
    same(saved(run), by_ledger(run))


@pytest.fixture
def called(run, ran, tmp_path):
    """A mode on the run, by name; the modes that make new edits make them in `made`."""
    made = f"--to={tmp_path / 'made'}"
    flags = {
        "undo": ("--batches=1", f"--workdir={run}"),
        "replay": (f"--workdir={run}",),
        "merge": (made, f"--workdir={ran},{run}"),
        "compact": (made, f"--workdir={run}"),
    }
    return lambda mode: tiny.call(f"--mode={mode}", *flags[mode])


MODES = ("undo", "replay", "merge", "compact")


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_is_not_finished_is_finished_first(run, tmp_path, called, capsys, mode):
    (run / "stages").mkdir()
    before = tiny.files(run)
    assert called(mode) == cli.BAD_INPUT
    assert "a run that is not finished: finish it first" in capsys.readouterr().err
    assert tiny.files(run) == before
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_run_in_use_is_left_alone(run, tmp_path, called, capsys, mode):
    with lock.held(run):
        before = tiny.files(run)
        assert called(mode) == cli.BAD_INPUT
        assert f"{run} is in use by process" in capsys.readouterr().err
        assert tiny.files(run) == before
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("mode", [("--mode=undo", "--batches=1"), ("--mode=replay",)])
def test_records_behind_a_damaged_one_are_not_thrown_away(run, tmp_path, capsys, mode):
    path = run / "edits" / ledger.NAME
    path.write_text(path.read_text().replace('"number": 3', '"number": 7'))
    before = tiny.files(run)
    assert tiny.call(*mode, f"--workdir={run}") == cli.BAD_INPUT
    assert "record 3 is damaged; it and 1 after it are not used" in capsys.readouterr().err
    assert tiny.files(run) == before
    assert tiny.call("--mode=compact", f"--workdir={run}", f"--to={tmp_path / 'rest'}") == 0
    assert len(ledger.read(tmp_path / "rest" / "edits").records[0].rows) == 8


def test_a_ledger_that_cannot_be_written_leaves_the_edits(run, monkeypatch, capsys):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = tiny.files(run)
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "_write", full)
        assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=1") == cli.BAD_INPUT
    assert "no space left" in capsys.readouterr().err
    assert tiny.files(run) == before


def test_half_of_a_merger_is_not_left_and_a_whole_one_is_not_trained_over(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    (other / "edits" / "000003.safetensors").write_bytes(b"?")
    to = tmp_path / "both"
    assert tiny.call("--mode=merge", f"--workdir={run},{other}", f"--to={to}") == cli.BAD_INPUT
    assert not to.exists()
    shutil.copy(run / "edits" / "000003.safetensors", other / "edits")
    assert tiny.call("--mode=merge", f"--workdir={run},{other}", f"--to={to}") == 0
    before = tiny.files(to)
    assert tiny.call(*tiny.flags(f"--workdir={to}", *MORE, editor="ultraedit")) == cli.BAD_INPUT
    assert "edits that were merged or made into one" in capsys.readouterr().err
    assert tiny.files(to) == before


@pytest.mark.parametrize(
    ("wanted", "known", "found"),
    [
        ("3", [1, 2, 3], [3]),
        ("1,3", [1, 2, 3], [1, 3]),
        (" 2-3 , 1", [1, 2, 3], [1, 2, 3]),
        ("2-", [1, 2, 5], [2, 5]),
        ("2-4", [1, 2, 5], [2]),
    ],
)
def test_numbers_of_batches(wanted, known, found):
    assert revise.numbered(wanted, known) == found


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("4", "4 names no batch in force; those are 1-3"),
        ("3-2", "3-2 names no batch"),
        ("two", "'two' is no number of a batch"),
        ("1;2", "'1;2' is no number"),
        (",", "names no batch"),
        ("9" * 20, "is no number"),
    ],
)
def test_numbers_that_name_nothing(wanted, said):
    with pytest.raises(InputError, match=said):
        revise.numbered(wanted, [1, 2, 3])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mode=undo", "--workdir=x"], "--mode=undo needs --batches=N"),
        (["--mode=undo", "--batches=1"], "--mode=undo needs --workdir=FOLDER, the run"),
        (["--mode=undo", "--workdir=nowhere", "--batches=1"], "is no run with a ledger"),
        (["--mode=merge", "--workdir=x", "--to=y"], "--mode=merge needs --workdir=FOLDER,FOLDER, two runs"),
        (["--mode=merge", "--workdir=x,y"], "--mode=merge needs --to=FOLDER"),
        (["--mode=merge", "--workdir=x,x", "--to=y"], "names one run twice"),
        (["--mode=compact", "--workdir=x"], "--mode=compact needs --to=FOLDER"),
        (["--mode=compact", "--workdir=x", "--to=y", "--batches=1"], "--batches=1 is which edits to take back"),
        (["--mode=eval", "--workdir=x", "--to=y"], "needs --mode=export or --mode=compare or"),
        (["--mode=undo", "--workdir=x", "--batches=1", "--config=configs/quickstart.py"], "leave --config out"),
    ],
)
def test_mistakes_are_told(flags, said, capsys):
    before = sorted(path.name for path in tiny.ROOT.iterdir())
    assert tiny.call(*flags) == cli.BAD_INPUT
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tiny.ROOT.iterdir()) == before


def test_a_folder_that_is_taken_is_left_alone(run, capsys):
    before = tiny.files(run)
    assert tiny.call("--mode=compact", f"--workdir={run}", f"--to={run}") == cli.BAD_INPUT
    assert "is there already" in capsys.readouterr().err
    assert tiny.files(run) == before
