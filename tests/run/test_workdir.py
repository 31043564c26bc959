import errno
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from emsedit_jax.errors import InputError
from emsedit_jax.run import arrays, storing, workdir


def test_a_new_folder_holds_the_config(tmp_path):
    config = common.get_config()
    opened = workdir.open_workdir(tmp_path / "a" / "b", config)
    assert json.loads(opened.config.read_text())["dataset"]["n_edits"] == 20
    assert [path.name for path in opened.path.iterdir()] == ["config.json"]
    assert workdir.saved_config(opened.path).to_dict() == config.to_dict()
    assert workdir.saved_config(opened.path).is_locked


def test_a_run_broken_off_keeps_its_metrics(tmp_path):
    opened = workdir.open_workdir(tmp_path, common.get_config())
    storing.append_jsonl(opened.metrics, {"step": 0})
    workdir.open_workdir(tmp_path, common.get_config())
    assert opened.metrics.read_text() == '{"step": 0}\n'


def test_nothing_is_written_over(tmp_path):
    opened = workdir.open_workdir(tmp_path, common.get_config())
    other = common.get_config()
    other.dataset.n_edits = 3
    with pytest.raises(InputError, match=r"other settings \(config\.dataset\.n_edits: 20 there, 3 here\)"):
        workdir.open_workdir(tmp_path, other)
    opened.summary.write_text("{}")
    with pytest.raises(InputError, match=r"finished run with other settings .*name another folder with --workdir"):
        workdir.open_workdir(tmp_path, other)
    assert json.loads(opened.config.read_text())["dataset"]["n_edits"] == 20


def test_files_of_somebody_else_are_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        workdir.open_workdir(tmp_path, common.get_config())
    with pytest.raises(InputError, match="is a file, not a folder"):
        workdir.open_workdir(tmp_path / "letter.txt", common.get_config())
    with pytest.raises(InputError, match="cannot write"):
        workdir.open_workdir(tmp_path / "letter.txt" / "run", common.get_config())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_damaged_or_missing_config(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        workdir.saved_config(tmp_path)
    (tmp_path / "config.json").write_text('{"num_seq": 1')
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        workdir.saved_config(tmp_path)


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    storing.write_json(path, {"old": 1})

    def half_way():
        with storing.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        half_way()
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        storing.write_json(path, {"new": object()})
    assert storing.read_json(path, "no way") == {"old": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["summary.json"]


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match="no space left on device"), storing.replacing(tmp_path / "x.json"):
        full()
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_ordinary_permissions(tmp_path):
    storing.write_json(tmp_path / "atomic.json", {})
    (tmp_path / "plain.json").write_text("{}")
    arrays.write(tmp_path / "x.safetensors", {"x": np.zeros(2)}, "edits", {})
    assert len({path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}) == 1


def test_json_holds_arrays_and_no_bare_nan(tmp_path):
    obj = {"a": np.float32(0.5), "b": jnp.arange(2), "c": (1, np.int64(2)), "d": float("nan"), "e": np.float64("inf")}
    storing.write_json(tmp_path / "x.json", obj | {"f": tmp_path, "g": "ø"})
    expected = {"a": 0.5, "b": [0, 1], "c": [1, 2], "d": None, "e": None, "f": str(tmp_path), "g": "ø"}
    assert storing.read_json(tmp_path / "x.json", "") == expected
    assert list(json.loads((tmp_path / "x.json").read_text())) == [*expected, "sha256"]


def test_metrics_are_on_file_after_every_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(2):
        storing.append_jsonl(path, {"step": step, "loss": np.float32(0.25)})
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert rows[-1] == {"step": step, "loss": 0.25}
    assert len(rows) == 2


@pytest.mark.parametrize("harm", [("0.5", "0.6"), ('"b"', '"c"'), ('"sha256"', '"sha255"'), ("[", "{")])
def test_json_that_changed_since_it_was_written_is_refused(tmp_path, harm):
    path = tmp_path / "x.json"
    storing.write_json(path, {"a": 0.5, "b": [1, 2]})
    path.write_text(path.read_text().replace(*harm))
    with pytest.raises(InputError, match=r"x\.json.*; mend it\."):
        storing.read_json(path, "mend it")
