import json
import shutil

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.measure.scores import Score
from emsedit_jax.run import storing
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.stages import Lost, Stages, plain_scores, remove_stages, scores_from
from emsedit_jax.run.workdir import Workdir


@pytest.fixture
def clock():
    return PhaseClock(CompileClock())


def same(value):
    return value


def reached(stages, name, value, log=None, **more):
    """A stage whose result is a number; logs a row on the way."""

    def make(keeper):
        if log is not None:
            storing.append_jsonl(log, {"stage": name})
        return value

    return stages.reach(name, make, same, same, **more)


def test_a_stage_is_made_once(tmp_path, clock, capsys):
    assert reached(Stages(Workdir(tmp_path), clock, 0), "first", 1) == 1
    again = Stages(Workdir(tmp_path), clock, 0)
    assert reached(again, "first", 2) == 1
    assert "first: done before" in capsys.readouterr().out
    assert reached(again, "second", 3) == 3


def test_rows_of_a_stage_broken_off_are_dropped_and_others_kept(tmp_path, clock):
    folder = Workdir(tmp_path)
    reached(Stages(folder, clock, 0), "first", 1, folder.metrics)
    storing.append_jsonl(folder.metrics, {"stage": "second, half done"})
    again = Stages(folder, clock, 0)
    reached(again, "first", 1, folder.metrics)
    reached(again, "second", 2, folder.metrics)
    rows = [json.loads(line)["stage"] for line in folder.metrics.read_text().splitlines()]
    assert rows == ["first", "second"]


def test_seconds_of_before_count(tmp_path, clock):
    def make(keeper):
        clock.credit({"train": 5.0, "total": 7.0})
        return 1

    Stages(Workdir(tmp_path), clock, 0).reach("first", make, same, same)
    later = PhaseClock(CompileClock())
    assert later.summary()["total"] < 1
    Stages(Workdir(tmp_path), later, 0).reach("first", make, same, same)
    assert later.summary()["train"] == 5.0
    assert 7 <= later.summary()["total"] < 8


def test_scores_come_back_as_they_were():
    scores = {"ES": Score(np.array([1 / 3, 0.1 + 0.2, np.nan, -np.inf]), ("a", "b", "c", "d"))}
    back = scores_from(json.loads(json.dumps(storing.plain(plain_scores(scores)))))
    np.testing.assert_array_equal(back["ES"].values, scores["ES"].values)
    assert back["ES"].items == scores["ES"].items


@pytest.fixture
def three(tmp_path, clock):
    """A folder with three stages that are finished; the last two have logged rows."""
    folder = Workdir(tmp_path)
    stages = Stages(folder, clock, 0)
    reached(stages, "first", 1, alone=True)
    reached(stages, "second", 2, folder.metrics)
    reached(stages, "third", 3, folder.metrics)
    return folder


def flip(path):
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 0x10
    path.write_bytes(bytes(found))


def again(folder, clock):
    """All three stages once more, with other values; the rows that are there then."""
    stages = Stages(folder, clock, 0)
    first = reached(stages, "first", 10, alone=True)
    found = [first, *(reached(stages, name, value, folder.metrics) for name, value in (("second", 20), ("third", 30)))]
    return found, [json.loads(line)["stage"] for line in folder.metrics.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "expected", "lost"),
    [("first", [10, 2, 3], "first"), ("second", [1, 20, 30], "second and third"), ("third", [1, 2, 30], "third")],
)
def test_a_damaged_stage_is_told_and_done_again_with_what_was_made_of_it(three, clock, capsys, name, expected, lost):
    flip(three.stages / f"{name}.json")
    assert again(three, clock) == (expected, ["second", "third"])
    out = capsys.readouterr().out
    assert f"{name}.json" in out
    assert f"anew: {lost}\n" in out
    assert again(three, clock) == (expected, ["second", "third"])
    assert "anew" not in capsys.readouterr().out


def test_a_stage_whose_other_files_are_damaged_is_done_again(three, clock, capsys):
    def back(value):
        raise Lost("networks.safetensors is damaged")

    stages = Stages(three, clock, 0)
    reached(stages, "first", 10, alone=True)
    assert stages.reach("second", lambda keeper: 20, same, back) == 20
    assert "networks.safetensors is damaged: done again" in capsys.readouterr().out
    assert not (three.stages / "third.json").exists()


def test_a_damaged_stage_goes_on_from_the_checkpoint_that_was_spared(tmp_path, clock):
    folder, seen = Workdir(tmp_path), []

    def make(keeper):
        seen.append(keeper.found.place["done"] if keeper.found is not None else 0)
        for done in range(seen[-1] + 1, 4):
            storing.append_jsonl(folder.metrics, {"done": done})
            if done < 3 and keeper.is_due():
                keeper.save({}, {"done": done})
        return 3

    for _ in range(2):
        Stages(folder, clock, 1).reach("first", make, same, same)
        flip(folder.stages / "first.json")
    assert seen == [0, 2]
    assert [json.loads(line)["done"] for line in folder.metrics.read_text().splitlines()] == [1, 2, 3]


def test_rows_that_are_missing_are_told_and_nothing_else_is_lost(three, clock, capsys):
    rows = three.metrics.read_bytes()
    three.metrics.write_bytes(rows[:-5])
    assert again(three, clock) == ([1, 2, 3], ["second"])
    assert f"cut short, at {len(rows.splitlines(keepends=True)[0])} bytes of {len(rows)}" in capsys.readouterr().out
    assert again(three, clock) == ([1, 2, 3], ["second"])
    assert "cut short" not in capsys.readouterr().out


def test_rows_that_are_missing_behind_a_checkpoint_are_told_once(tmp_path, clock, capsys):
    folder = Workdir(tmp_path)

    def begun(then):
        def make(keeper):
            if keeper.found is None:
                for done in range(2):
                    storing.append_jsonl(folder.metrics, {"done": done})
                assert keeper.is_due()
                keeper.save({}, {"done": 2})
            storing.append_jsonl(folder.metrics, {"done": 2})
            then()

        return make

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages(folder, clock, 1).reach("first", begun(die), same, same)
    folder.metrics.write_bytes(folder.metrics.read_bytes()[:-15])
    with pytest.raises(KeyboardInterrupt):
        Stages(folder, clock, 1).reach("first", begun(die), same, same)
    assert "cut short" in capsys.readouterr().out
    Stages(folder, clock, 1).reach("first", begun(lambda: None), same, same)
    assert "cut short" not in capsys.readouterr().out
    assert [json.loads(line)["done"] for line in folder.metrics.read_text().splitlines()] == [0, 2]


OF = {"the facts": "1", "the networks": "1"}


def test_what_a_stage_was_made_of_is_named_where_it_is_something_else(tmp_path, clock):
    def begun(of, **more):
        return reached(Stages(Workdir(tmp_path), clock, 0, of), "first", 1, **more)

    assert begun(OF, without=("the networks",)) == 1
    assert begun(OF | {"the networks": "2"}, without=("the networks",)) == 1
    with pytest.raises(InputError, match="when this run was begun: the facts; give back"):
        begun(OF | {"the facts": "2"}, without=("the networks",))
    with pytest.raises(InputError, match="when this run was begun: the facts, the networks, the text; give back"):
        begun({"the facts": "2", "the networks": "1", "the text": "1"})


def test_a_stage_of_an_earlier_version_is_not_gone_on_with(tmp_path, clock):
    reached(Stages(Workdir(tmp_path), clock, 0, OF), "first", 1)
    path = tmp_path / "stages" / "first.json"
    storing.write_json(path, storing.read_json(path, "") | {"of": "5f4dcc3b5aa765d6"})
    with pytest.raises(InputError, match="an earlier version began this run; name another --workdir"):
        reached(Stages(Workdir(tmp_path), clock, 0, OF), "first", 1)


def test_stages_that_another_program_removes_too_are_removed(tmp_path, clock, monkeypatch):
    folder, remove = Workdir(tmp_path), shutil.rmtree
    for name in ("first", "second"):
        reached(Stages(folder, clock, 0), name, 1)

    def overtaken(path):
        """Finds that a file is gone already, the first time."""
        monkeypatch.setattr(shutil, "rmtree", remove)
        (path / "first.json").unlink()
        raise FileNotFoundError(path / "first.json")

    monkeypatch.setattr(shutil, "rmtree", overtaken)
    remove_stages(folder)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_finished_run(tmp_path, clock):
    stages = Stages(Workdir(tmp_path), clock, 0)
    reached(stages, "first", 1)
    stages.finish()
    assert list(tmp_path.iterdir()) == []
