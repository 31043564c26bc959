"""Runs that are broken off and go on: to the last bit what an uninterrupted run leaves."""

import json
import os
import shutil
import signal

import pytest

from emsedit_jax.meta import trajectory
from emsedit_jax.run import anchor, checkpoint, cli, ledger, main, scoring, watch
from emsedit_jax.run.workdir import Workdir
from tests.run import tiny

LONG = (
    "--config.num_seq=4",
    "--config.checkpoint.every=1",
    "--config.train.n_trajectories=2",
    "--config.editor.full_curve",
    "--config.eval.batch_tokens=128",
)
HELD_OUT = (
    "--config.num_seq=2",
    "--config.checkpoint.every=1",
    "--config.editor.n_epochs=4",
    "--config.train.holdout=1",
)
EDITORS = {"emsedit": LONG, "rledit": LONG, "ultraedit": LONG[:2] + LONG[3:], "malmen": HELD_OUT}
FREE = ("seconds", "compiled", "prefix_store", "peak_rss_mb", "peak_device_mb", "peaks_mb", "sha256")  # of a summary


class Killed(BaseException):
    """Stands for a process that is no more: nothing catches it."""


def left(workdir):
    """What a run leaves, without what may differ."""
    summary = {name: value for name, value in tiny.read(workdir / "summary.json").items() if name not in FREE}
    found = tiny.files(workdir)
    files = {name: found[name] for name in ("edits.safetensors", "scores.json", "metrics.jsonl")}
    files |= {name: found[name] for name in ("hypernet.safetensors",) if name in found}  # of editors with networks
    return summary, files, {name.partition(".tfevents.")[0] for name in found}  # (behind it are time and host)


def calls(monkeypatch, module, name, at, then):
    """Calls `then` before the call number `at` of a function; counts them."""
    original, count = getattr(module, name), [0]

    def counted(*args, **kwargs):
        count[0] += 1
        if count[0] == at:
            then()
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return count


def die():
    raise Killed


def killed(path, monkeypatch, at, name="train_batch", editor="emsedit", room=trajectory):
    """A run that dies at that call of a function."""
    flags = tiny.flags(f"--workdir={path}", *EDITORS[editor], editor=editor)
    with monkeypatch.context() as patch:
        calls(patch, room, name, at, die)
        with pytest.raises(Killed):
            tiny.call(*flags)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs, made when asked for."""
    known = {}

    def made(editor):
        if editor not in known:
            path = tmp_path_factory.mktemp("whole") / editor
            tiny.train(path, *EDITORS[editor], editor=editor)
            known[editor] = left(path)
        return known[editor]

    return made


def goes_on(path, editor, whole):
    tiny.train(path, *EDITORS[editor], editor=editor)
    for found, expected in zip(left(path), whole(editor), strict=True):
        assert found == expected


@pytest.mark.parametrize("at", [2, 5, 8])
@pytest.mark.parametrize("editor", ["emsedit", "rledit"])
def test_training_goes_on_where_it_was_saved(editor, at, tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, at, editor=editor)
    whole(editor)  # made before calls are counted
    batches = calls(monkeypatch, trajectory, "train_batch", 0, die)
    goes_on(tmp_path, editor, whole)
    assert batches[0] == 8 - (at - 1)


@pytest.mark.parametrize("editor", ["emsedit", "ultraedit"])
def test_editing_goes_on_where_it_was_saved(editor, tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, 3, "edit_batch", editor)
    whole(editor)  # made before calls are counted
    batches = calls(monkeypatch, trajectory, "edit_batch", 0, die)
    goes_on(tmp_path, editor, whole)
    assert batches[0] == 2


def test_held_out_facts_and_the_best_networks_are_remembered(tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, 3, editor="malmen")
    goes_on(tmp_path, "malmen", whole)


@pytest.mark.parametrize(
    ("name", "at"),
    [("save", 1), ("save", 3), ("save", 9), ("save", 14), ("clear", 1), ("clear", 2), ("thin", 1), ("thin", 7)],
)
def test_a_death_before_any_checkpoint_is_written_or_removed_loses_nothing(name, at, tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, at, name, room=checkpoint.Checkpoints)
    goes_on(tmp_path, "emsedit", whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["train_batch", "edit_batch"])
def test_a_run_that_is_asked_to_stop_saves_and_says_so(number, name, tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        calls(patch, trajectory, name, 2, lambda: os.kill(os.getpid(), number))
        flags = tiny.flags(f"--workdir={tmp_path}", *EDITORS["emsedit"])
        assert tiny.call(*flags) == cli.PREEMPTED
    assert f"--workdir={tmp_path} goes on" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()
    goes_on(tmp_path, "emsedit", whole)


def test_a_second_interruption_stops_at_once(tmp_path, whole, monkeypatch, capsys):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        calls(patch, trajectory, "train_batch", 3, twice)
        assert tiny.call(*tiny.flags(f"--workdir={tmp_path}", *EDITORS["emsedit"])) == cli.INTERRUPTED
    goes_on(tmp_path, "emsedit", whole)


def flip(path):
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 0x10
    path.write_bytes(bytes(found))


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(tmp_path, whole, monkeypatch, capsys):
    killed(tmp_path, monkeypatch, 6)
    folder = tmp_path / "stages" / "trained.checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["4", "4.json", "5", "5.json"]
    flip(max((folder / "5").rglob("d/*"), key=lambda path: path.stat().st_size))
    whole("emsedit")  # made before calls are counted
    batches = calls(monkeypatch, trajectory, "train_batch", 0, die)
    goes_on(tmp_path, "emsedit", whole)
    assert "checkpoint 5: " in capsys.readouterr().out
    assert batches[0] == 4


def test_checkpoints_that_are_all_damaged_begin_the_stage_anew(tmp_path, whole, monkeypatch, capsys):
    killed(tmp_path, monkeypatch, 6)
    (tmp_path / "stages" / "trained.checkpoints" / "4" / "_CHECKPOINT_METADATA").unlink()
    (tmp_path / "stages" / "trained.checkpoints" / "5.json").write_text("{")
    goes_on(tmp_path, "emsedit", whole)
    assert "checkpoint 5: " in (out := capsys.readouterr().out)
    assert "checkpoint 4: " in out


def damaged(record):
    def harm(folder):
        lines = (folder / ledger.NAME).read_bytes().split(b"\n")
        lines[record] = lines[record].replace(b'"answer"', b'"anzwer"')
        (folder / ledger.NAME).write_bytes(b"\n".join(lines))

    return harm


@pytest.mark.parametrize(
    ("harm", "again", "said"),
    [
        (damaged(3), 2, "record 3 is damaged"),
        (damaged(1), 4, "record 1 is damaged"),
        (lambda folder: (folder / "000003.safetensors").unlink(), 2, "000003.safetensors is gone"),
        (shutil.rmtree, 4, "is no run with a ledger"),
    ],
)
def test_a_damaged_ledger_is_told_and_written_anew_from_a_checkpoint_before(
    harm, again, said, tmp_path, whole, monkeypatch, capsys
):
    killed(tmp_path, monkeypatch, 4, "edit_batch", "ultraedit")
    harm(tmp_path / "edits")
    whole("ultraedit")  # made before calls are counted
    batches = calls(monkeypatch, trajectory, "edit_batch", 0, die)
    goes_on(tmp_path, "ultraedit", whole)
    assert said in capsys.readouterr().out
    assert batches[0] == again
    found = anchor.read(Workdir(tmp_path))
    assert (len(found.records), found.lost) == (4, "")


@pytest.mark.parametrize(
    ("name", "room", "at", "file", "told"),
    [
        ("edit_batch", trajectory, 3, "hypernet.safetensors", "anew: trained and edits"),
        ("score_all", scoring, 2, "edits.safetensors", "it is written anew from the ledger"),
    ],
)
def test_a_damaged_file_of_a_stage_is_made_again(name, room, at, file, told, tmp_path, whole, monkeypatch, capsys):
    killed(tmp_path, monkeypatch, at, name, room=room)
    flip(tmp_path / file)
    whole("emsedit")  # made before calls are counted
    batches = calls(monkeypatch, trajectory, "train_batch", 0, die)
    goes_on(tmp_path, "emsedit", whole)
    assert told in (out := capsys.readouterr().out)
    assert f"{file} is damaged" in out
    assert batches[0] == 0  # the checkpoint that was spared is of the last one


def test_a_run_does_not_go_on_with_other_facts(tmp_path, monkeypatch, capsys):
    rows = tiny.read(tiny.DATA / "zsre_train.json")
    facts = tmp_path / "facts.json"
    given = f"--config.dataset.train_path={facts}"
    facts.write_text(json.dumps(rows))
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", *EDITORS["emsedit"], given)
    with monkeypatch.context() as patch:
        calls(patch, trajectory, "train_batch", 3, die)
        with pytest.raises(Killed):
            tiny.call(*flags)
    rows[5]["ans"] = "Something else"
    facts.write_text(json.dumps(rows))
    assert tiny.call(*flags) == cli.BAD_INPUT
    assert "when this run was begun: the facts, the facts' tokens; give back" in capsys.readouterr().err


def test_what_a_death_left_half_written_is_swept_away(tmp_path, whole, monkeypatch):
    killed(tmp_path, monkeypatch, 2, "edit_batch")
    for place in (tmp_path / ".config-ab12cd34.json", tmp_path / "edits" / ".000001-ab12cd34.safetensors"):
        place.write_text("{")
    goes_on(tmp_path, "emsedit", whole)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / ".config-ab12cd34.json").write_text("{")
    tiny.train(fresh, *EDITORS["emsedit"])
    assert left(fresh) == whole("emsedit")


def test_a_run_that_diverged_goes_on_with_the_networks_that_it_trained(tmp_path, whole, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise watch.Diverged("batch 2 is broken", None, kept[0])

    kept = []
    original = main.Stages.reach

    def reach(self, name, *given, **more):
        found = original(self, name, *given, **more)
        if name == "trained":
            kept.append(found[0])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(main.Stages, "reach", reach)
        calls(patch, trajectory, "edit_batch", 3, broken)
        assert tiny.call(*tiny.flags(f"--workdir={tmp_path}", *EDITORS["emsedit"])) == cli.BAD_INPUT
    goes_on(tmp_path, "emsedit", whole)
