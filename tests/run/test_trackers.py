"""What trackers are told of a run: every row that counts, once, whatever happened on the way."""

import importlib
import importlib.util
import json
import os
import signal
import struct
import sys
import types
from typing import Any

import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.meta import trajectory
from emsedit_jax.run import cli, settings, trackers, tracking, workdir
from emsedit_jax.run.tracking import Tracking
from emsedit_jax.run.workdir import Workdir
from tests.faults.test_broken_off import Killed, calls, die, left
from tests.fresh_programs import fresh_programs as fresh_programs
from tests.run import tiny

SPARSE = ("--config.num_seq=4", "--config.checkpoint.every=3", "--config.train.n_trajectories=2")
BOTH = "--config.track=('wandb', 'swanlab')"


def logged(path):
    """(step, numbers) of each event of the last event file in the folder, its checksums checked; others are empty."""
    messages: Any = importlib.import_module("tensorboardX.proto.event_pb2")
    from tensorboardX.record_writer import masked_crc32c

    *old, file = sorted((path / "tensorboard").iterdir())
    assert [one.stat().st_size for one in old] == [0] * len(old)
    content, found = file.read_bytes(), []
    while content:
        size, sum_of_size = struct.unpack("<QI", content[:12])
        data, (sum_of_data,) = content[12 : 12 + size], struct.unpack("<I", content[12 + size : 16 + size])
        assert (sum_of_size, sum_of_data) == (masked_crc32c(content[:8]), masked_crc32c(data))
        found.append(messages.Event.FromString(data))
        content = content[16 + size :]
    assert found[0].file_version == "brain.Event:2"
    assert found[1].HasField("session_log")  # what was read of this run before is forgotten
    assert found[1].step == 0
    return [(one.step, {value.tag: value.simple_value for value in one.summary.value}) for one in found[2:]]


def assert_told(found, path):
    """All rows of metrics and the scores at the end, a step each, and nothing else."""
    scores = tiny.read(path / "summary.json")["scores"]
    last = {f"scores/{row}/{name}": value for row, found in scores.items() for name, value in found.items()}
    wanted = [*map(tracking.scalars, tiny.rows(path)), last]
    assert [step for step, _ in found] == list(range(len(wanted)))
    for (_, one), other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        here, there = ([np.float32(row[name]) for name in other] for row in (one, other))
        np.testing.assert_array_equal(here, there)


def broken_off(path, monkeypatch, name, at, *flags):
    """A run that dies at that call of a function."""
    with monkeypatch.context() as patch:
        calls(patch, trajectory, name, at, die)
        with pytest.raises(Killed):
            tiny.call(*tiny.flags(f"--workdir={path}", *SPARSE, *flags))


# ---------------------------------------------------------------------------------------------- TensorBoard


def test_every_row_and_the_scores_are_in_the_event_file(finished):
    found = logged(finished)
    assert_told(found, finished)
    assert {"train/batch", "train/edit_loss/1", f"train/shift_norm/0/{tiny.SITES[0]}"} < set(found[0][1])
    assert {"edit/batch", "edit/ES"} < set(found[-2][1])
    assert {"scores/unedited/LS", "scores/edited/ES"} < set(found[-1][1])


@pytest.mark.parametrize(("name", "at"), [("train_batch", 3), ("train_batch", 6), ("edit_batch", 3)])
def test_rows_that_are_made_again_are_told_once(name, at, tmp_path, monkeypatch):
    broken_off(tmp_path, monkeypatch, name, at)
    before = tiny.rows(tmp_path)
    assert [one for _, one in logged(tmp_path)] == [
        pytest.approx(tracking.scalars(row), rel=1e-6) for row in before
    ]  # they come as they are made
    count = calls(monkeypatch, trajectory, name, 0, die)
    tiny.train(tmp_path, *SPARSE)
    whole, made = {"train_batch": (8, 0), "edit_batch": (4, 8)}[name]
    assert count[0] > whole - (len(before) - made)  # some rows were dropped
    assert_told(logged(tmp_path), tmp_path)


def test_a_run_that_died_before_its_summary_is_told_as_a_whole(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Tracking, "end", lambda *_: die())
        with pytest.raises(Killed):
            tiny.call(*tiny.flags(f"--workdir={tmp_path}"))
    (old,) = (tmp_path / "tensorboard").iterdir()
    late = old.rename(old.with_name("events.out.tfevents.5555555555.elsewhere"))  # a machine whose clock is ahead
    tiny.train(tmp_path)
    assert_told(logged(tmp_path), tmp_path)
    assert late.exists()  # a TensorBoard that watches it goes on to the next


def test_empty_event_files_do_not_gather(tmp_path):
    for _ in range(4):
        trackers.TensorBoard(Workdir(tmp_path), tiny.command().config).log({"a": 1.0}, 0)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert logged(tmp_path) == [(0, {"a": 1.0})]


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_metrics_that_somebody_has_spoilt_do_not_stop_the_run(line, tmp_path, monkeypatch, capsys):
    broken_off(tmp_path, monkeypatch, "edit_batch", 3)
    metrics = tmp_path / "metrics.jsonl"
    first, rest = metrics.read_bytes().split(b"\n", 1)
    metrics.write_bytes(line + b" " * (len(first) - len(line)) + b"\n" + rest)
    tiny.train(tmp_path, *SPARSE)
    assert "warning  metrics.jsonl cannot be read (" in capsys.readouterr().out


def test_numbers_that_are_none_are_left_out():
    row = {"phase": "edit", "batch": 3, "ES": None, "loss": [0.5, float("nan")], "norm": [{"a": 2.0}, {}], "on": True}
    assert tracking.scalars(row) == {"edit/batch": 3, "edit/loss/0": 0.5, "edit/norm/0/a": 2.0}


def test_torch_is_not_loaded_for_it(tmp_path):
    code = "import sys; from emsedit_jax.run import trackers, workdir; from pathlib import Path\n"
    code += (
        f"board = trackers.TensorBoard(workdir.Workdir(Path({str(tmp_path)!r})), None); board.log({{'a': 1.0}}, 3)\n"
    )
    code += "assert not any(name.split('.')[0] in ('torch', 'tensorflow') for name in sys.modules)\n"
    code += "import importlib.util; importlib.util.find_spec('torch')"  # it can be asked for again
    done = tiny.python("-W", "error", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert logged(tmp_path) == [(3, {"a": 1.0})]


def test_only_the_first_process_tracks(tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "is_first", lambda: False)
    config = tiny.command().config
    with_rows = Tracking(Workdir(tmp_path), config)
    with_rows.log({"phase": "edit", "batch": 0})
    with_rows.end({"edited": {"ES": 1.0}})
    with_rows.close()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- those asked for


class Server:
    """Stands for wandb and swanlab: keeps runs by their id, and takes the steps of each in order alone."""

    def __init__(self):
        self.runs, self.given, self.finished = {}, [], 0

    def init(self, **given):
        self.given.append(given)
        signal.signal(signal.SIGINT, lambda *_: None)  # as swanlab does
        return Run(self, self.runs.setdefault(given["id"], []))


class Run:
    def __init__(self, server, kept):
        self._server, self._kept = server, kept
        self.step = kept[-1][0] + 1 if kept else 0

    def log(self, scalars, step):
        if self._kept and step <= self._kept[-1][0]:
            assert (step, scalars) in self._kept
        else:
            self._kept.append((step, scalars))

    def finish(self):
        self._server.finished += 1


@pytest.fixture
def servers(monkeypatch):
    """Both libraries, as far as they are used."""
    found = {name: Server() for name in settings.TRACKERS}
    for name, server in found.items():
        module = types.ModuleType(name)
        module.__dict__["init"] = server.init
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_both_are_told_all_and_change_nothing(tmp_path, servers, monkeypatch):
    tiny.train(tmp_path / "plain", *SPARSE)
    broken_off(tmp_path / "run", monkeypatch, "edit_batch", 3, BOTH)
    tiny.train(tmp_path / "run", *SPARSE, BOTH)
    assert left(tmp_path / "run")[:2] == left(tmp_path / "plain")[:2]
    (run_id,) = {given["id"] for server in servers.values() for given in server.given}  # it is one run
    for server in servers.values():
        assert_told(server.runs[run_id], tmp_path / "run")
        assert server.finished == len(server.given) == 2
        given = server.given[1]
        assert (given["project"], given["name"], given["resume"]) == ("emsedit", "run", "allow")
        assert given["config"] == json.loads(json.dumps(workdir.saved_config(tmp_path / "run").to_dict()))
    assert servers["wandb"].given[0]["dir"] == str(tmp_path / "run")
    assert servers["swanlab"].given[0]["log_dir"] == str(tmp_path / "run" / "swanlog")


def test_wandb_is_not_sent_what_it_has(tmp_path, servers, monkeypatch):
    sent, log = [], Run.log
    monkeypatch.setattr(Run, "log", lambda run, scalars, step: (sent.append(step), log(run, scalars, step)))
    flags = [*SPARSE, "--config.track=('wandb',)"]
    broken_off(tmp_path, monkeypatch, "edit_batch", 3, flags[-1])
    tiny.train(tmp_path, *flags)
    assert sent == sorted(set(sent))


def test_projects_may_be_named_outside(tmp_path, servers, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("SWANLAB_PROJ_NAME", "too")
    for name in settings.TRACKERS:
        trackers.OPENERS[name](Workdir(tmp_path), tiny.command().config)
    assert [servers[name].given[0]["project"] for name in settings.TRACKERS] == ["mine", "too"]


def test_an_interruption_stays_the_runs_own(tmp_path, servers, monkeypatch):
    flags = [*SPARSE, "--config.track=('swanlab',)"]
    with monkeypatch.context() as patch:
        calls(patch, trajectory, "edit_batch", 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert tiny.call(*tiny.flags(f"--workdir={tmp_path}", *flags)) == cli.PREEMPTED
    assert servers["swanlab"].finished == 1
    tiny.train(tmp_path, *SPARSE)  # nobody has to be told of the rest
    assert_told(logged(tmp_path), tmp_path)


@pytest.mark.parametrize("deed", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_left_out(deed, tmp_path, servers, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError("no such\nserver")

    if deed == "init":
        monkeypatch.setitem(sys.modules["wandb"].__dict__, "init", broken)
    else:
        monkeypatch.setattr(Run, deed, broken)
    tiny.train(tmp_path, "--config.track=('wandb',)")
    lines = [line for line in capsys.readouterr().out.splitlines() if "wandb" in line]
    assert lines == ["warning  wandb fails (no such server): the run goes on without it; metrics.jsonl has all rows"]
    assert_told(logged(tmp_path), tmp_path)


def test_a_disk_that_is_full_for_tensorboard_does_not_stop_the_run(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(trackers, "_record", full)
    tiny.train(tmp_path)
    assert "tensorboard fails ([Errno 28] No space left on device)" in capsys.readouterr().out


def test_a_tracker_that_is_not_there_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", "--config.track=('wandb',)")
    assert tiny.call(*flags) == cli.BAD_INPUT
    said = capsys.readouterr()
    assert "error: --config.track names wandb, which is not installed: pip install wandb, or leave it out." in said.err
    assert "model " not in said.out
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_other_trackers(tmp_path, servers, monkeypatch):
    broken_off(tmp_path, monkeypatch, "train_batch", 6)
    tiny.train(tmp_path, *SPARSE, "--config.track=('wandb',)")
    (run,) = servers["wandb"].runs.values()
    assert_told(run, tmp_path)


# ---------------------------------------------------------------------------------------------- the libraries


def records(content):
    """The records of a LevelDB log, in which both libraries keep a run."""
    place, part = 7, b""
    while place < len(content):
        rest = 2**15 - place % 2**15
        if rest < 7:
            place += rest
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def of_wandb(path):
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found = []
    for record in map(pb.Record.FromString, records(path.read_bytes())):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            found.append((row["_step"], {name: value for name, value in row.items() if name[0] != "_"}))
    return found


def of_swanlab(path):
    pb = pytest.importorskip("swanlab.proto.swanlab.record.v1.record_pb2")
    found = {}
    for record in map(pb.Record.FromString, records(path.read_bytes())):
        if record.HasField("scalar") and not record.scalar.key.startswith("__"):
            found.setdefault(record.scalar.step, {})[record.scalar.key] = record.scalar.value.number
    return sorted(found.items())


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "files", "read"),
    [("wandb", "wandb/offline-run-*/*.wandb", of_wandb), ("swanlab", "swanlog/run-*/*.swanlab", of_swanlab)],
)
def test_the_library_itself_keeps_a_run_without_a_network(name, files, read, tmp_path):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    offline = {"HOME": str(tmp_path), "WANDB_MODE": "offline", "SWANLAB_MODE": "offline"}
    run = tmp_path / "run"
    flags = tiny.flags(f"--workdir={run}", f"--config.track=('{name}',)")
    for died in (True, False):
        code = "import launch, sys; from emsedit_jax.meta import trajectory\n"
        code += "trajectory.edit_batch = None\n" if died else ""
        code += "launch.main(sys.argv)"
        done = tiny.python("-c", code, *flags, env=offline)
        assert (done.returncode != 0) == died, done.stderr
        assert "warning" not in done.stdout
    assert_told(read(sorted(run.glob(files))[-1]), run)  # each holds all rows so far
