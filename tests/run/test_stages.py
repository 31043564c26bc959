import json

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.measure.scores import Score
from emsedit_jax.run import storing
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.stages import Stages, plain_scores, scores_from
from emsedit_jax.run.workdir import Workdir


@pytest.fixture
def clock():
    return PhaseClock(CompileClock())


def same(value):
    return value


def reached(stages, name, value, log=None):
    """A stage whose result is a number; logs a row on the way."""

    def make(keeper):
        if log is not None:
            storing.append_jsonl(log, {"stage": name})
        return value

    return stages.reach(name, make, same, same)


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
    scores = {"ES": Score(np.array([1 / 3, 0.1 + 0.2, np.nan]), ("a", "b", "c"))}
    back = scores_from(json.loads(json.dumps(storing.plain(plain_scores(scores)))))
    np.testing.assert_array_equal(back["ES"].values, scores["ES"].values)
    assert back["ES"].items == scores["ES"].items


def test_a_damaged_stage_is_told(tmp_path, clock):
    stages = Stages(Workdir(tmp_path), clock, 0)
    reached(stages, "first", 1)
    (tmp_path / "stages" / "first.json").write_text('{"seconds": {}')
    with pytest.raises(InputError, match=r"cannot read .*first\.json.*remove it"):
        reached(Stages(Workdir(tmp_path), clock, 0), "first", 1)


def test_nothing_is_left_of_a_finished_run(tmp_path, clock):
    stages = Stages(Workdir(tmp_path), clock, 0)
    reached(stages, "first", 1)
    stages.finish()
    assert list(tmp_path.iterdir()) == []
