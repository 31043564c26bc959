"""Several processes as one run: the numbers of one process, files of the first alone, and no survivor of a loss."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emsedit_jax.run import cli, cluster, edits
from tests.parity import golden, test_end_to_end
from tests.parity.compare import STAGE, assert_close
from tests.run import tiny
from tests.sharded import test_golden, worker

ROOT = Path(__file__).parents[2]
DEADLINE_S = 600
FOREIGN = ("NPROC", "JAX_", "XLA_", "SLURM_", "OMPI_", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
HERE = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def started(commands: list[list[str]], folder: Path, devices: int = 2) -> Iterator[list[subprocess.Popen]]:
    """The processes, with their output in files, none of which outlives the block."""
    running = []
    environment = HERE | {"JAX_NUM_CPU_DEVICES": str(devices)}
    with contextlib.ExitStack() as files:
        for number, command in enumerate(commands):
            log = files.enter_context((folder / f"log{number}").open("w"))
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
            )
        try:
            yield running
        finally:
            for one in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
                one.wait()


def when(path: Path, running: list[subprocess.Popen], folder: Path) -> None:
    """Waits until something is there that a run writes."""
    deadline = time.monotonic() + DEADLINE_S
    while not any(path.parent.glob(path.name)):
        assert running[0].poll() is None, (folder / "log0").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(commands: list[list[str]], folder: Path) -> list[str]:
    """What each printed; all must end well."""
    with started(commands, folder) as running:
        codes = [one.wait(DEADLINE_S) for one in running]
    logs = [(folder / f"log{number}").read_text() for number in range(len(commands))]
    assert codes == [0] * len(commands), "\n".join(logs)
    return logs


def launches(workdir: Path, *more: str) -> list[list[str]]:
    """The commands of two processes that make one run."""
    joint = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    flags = tiny.flags(f"--workdir={workdir}", "--config.mesh.data=-1", "--config.mesh.model=2", *more)
    return [[sys.executable, "launch.py", *flags, *joint, f"--process={number}"] for number in range(2)]


def assert_runs_alike(folder: Path, alone: dict) -> None:
    """The run of two processes in `two` has the scores and the edits of the one in `alone`."""
    found = tiny.read(folder / "two" / "summary.json")
    assert found["scores"] == alone["scores"]
    assert (found["processes"], found["mesh"]) == (2, {"data": 2, "model": 2})
    one, other = (edits.arrays.read(folder / run / "edits.safetensors", "edits", "")[1] for run in ("two", "alone"))
    assert_close([(name, one[name], array) for name, array in other.items()], STAGE)


def test_processes_that_are_not_started_alike_are_told(tmp_path):
    first, second = launches(tmp_path / "two")
    with started([first, [*second, "--config.num_seq=3"]], tmp_path) as running:
        assert [one.wait(DEADLINE_S) for one in running] == [cli.BAD_INPUT] * 2
    for number in range(2):
        assert "process 1 has --config.num_seq=3, process 0 2" in (tmp_path / f"log{number}").read_text()
    assert not (tmp_path / "two").exists()


def test_two_processes_make_the_run_of_one(tmp_path):
    alone = tiny.train(tmp_path / "alone")
    first, second = finished(launches(tmp_path / "two"), tmp_path)
    assert_runs_alike(tmp_path, alone)
    assert "files in" in first
    assert "files in" not in second
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names


STREAMED = ("--config.editor.rows_at_once=4", "--config.num_seq=1")


@pytest.mark.long
def test_two_processes_stream_the_rows_of_one(tmp_path):
    alone = tiny.train(tmp_path / "alone", *STREAMED)
    finished(launches(tmp_path / "two", *STREAMED), tmp_path)
    assert_runs_alike(tmp_path, alone)


def test_each_process_reads_its_own_part_of_the_weights(tmp_path):
    port = str(free_port())
    command = [sys.executable, "-m", "tests.sharded.reader", port, "2"]
    finished([[*command, str(number), str(tiny.MODEL), str(tmp_path)] for number in range(2)], tmp_path)
    mine, theirs = (json.loads((tmp_path / f"read{number}.json").read_text()) for number in range(2))
    assert mine.keys() == theirs.keys()
    gate, down = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "down"))  # 56 x 32, 32 x 56
    cuts = [[start, start + 14] for start in range(0, 56, 14)]
    assert sorted(mine[gate] + theirs[gate]) == [[cut, [0, 32]] for cut in cuts]
    assert sorted(mine[down] + theirs[down]) == [[[0, 32], cut] for cut in cuts]
    assert all(len(found[name]) == 2 for found in (mine, theirs) for name in (gate, down))
    norm = "model.layers.0.input_layernorm.weight"  # on every device whole
    assert mine[norm] == theirs[norm] == [[[0, 32]]]


@pytest.mark.long
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_stops_the_other(lost, tmp_path):
    commands = launches(tmp_path / "two", "--config.editor.n_epochs=5000")
    with started(commands, tmp_path) as running:
        when(tmp_path / "two" / "metrics.jsonl", running, tmp_path)  # until it learns
        os.killpg(running[lost].pid, signal.SIGKILL)
        begun = time.monotonic()
        code = running[1 - lost].wait(4 * cluster.LOST_AFTER_S)
        assert time.monotonic() - begun < 60
    assert code != 0
    if lost == 1:  # the first is the one that knows who is lost
        assert "Task 1 heartbeat timeout" in (tmp_path / "log0").read_text()


@pytest.mark.long
def test_an_error_of_the_first_alone_stops_the_other(tmp_path):
    first, second = launches(tmp_path / "two", "--config.editor.n_epochs=20")
    small = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", *first]  # no file of it may become larger than 8 KB
    with started([small, second], tmp_path) as (broken, other):
        code = broken.wait(DEADLINE_S)
        begun = time.monotonic()
        assert other.wait(4 * cluster.LOST_AFTER_S) != 0
        assert time.monotonic() - begun < 60
    assert code != 0
    assert "cannot write" in (tmp_path / "log0").read_text()


MANY_BATCHES = ("--config.num_seq=4", "--config.checkpoint.every=1")


@pytest.mark.long
def test_a_run_of_two_processes_goes_on_as_one(tmp_path):
    alone = tiny.train(tmp_path / "alone", *MANY_BATCHES)
    with started(launches(tmp_path / "two", *MANY_BATCHES), tmp_path) as running:
        when(tmp_path / "two" / "stages" / "trained.checkpoints" / "*.json", running, tmp_path)
    one = [sys.executable, "launch.py", *tiny.flags(f"--workdir={tmp_path / 'two'}", *MANY_BATCHES)]
    (said,) = finished([one], tmp_path)
    assert "resumed" in said
    found = tiny.read(tmp_path / "two" / "summary.json")
    assert found["scores"] == alone["scores"]
    assert found["processes"] == 1


@pytest.mark.long
def test_two_processes_are_asked_to_stop_and_go_on(tmp_path):
    alone = tiny.train(tmp_path / "alone", *MANY_BATCHES, "--config.editor.n_epochs=20")
    commands = launches(tmp_path / "two", *MANY_BATCHES, "--config.editor.n_epochs=20")
    with started(commands, tmp_path) as running:
        when(tmp_path / "two" / "metrics.jsonl", running, tmp_path)
        for one in running:
            one.send_signal(signal.SIGTERM)
        codes = [one.wait(DEADLINE_S) for one in running]
    assert codes == [cli.PREEMPTED] * 2, (tmp_path / "log0").read_text()
    first, _ = finished(launches(tmp_path / "two", *MANY_BATCHES, "--config.editor.n_epochs=20"), tmp_path)
    assert "resumed" in first
    assert tiny.read(tmp_path / "two" / "summary.json")["scores"] == alone["scores"]


@pytest.mark.long
@pytest.mark.parametrize("name", test_golden.matched())
def test_a_recorded_run_over_processes_gives_the_numbers_of_one(name, tmp_path):
    case, port = golden.load(name), str(free_port())
    steps = list(test_golden.alone(case))
    begun = {worker.key(one.place, number): leaf for one in steps for number, leaf in worker.leaves(one.begun)}
    save_file(begun, tmp_path / "begun")
    command = [sys.executable, "-m", "tests.sharded.worker", port, "2"]
    finished([[*command, str(number), name, "2x2", str(tmp_path)] for number in range(2)], tmp_path)
    found = load_file(tmp_path / "found")
    for one in steps:
        tree = jax.tree.structure((one.edits, one.shift))
        came = tree.unflatten([found[worker.key(one.place, number)] for number in range(tree.num_leaves)])
        assert_close(test_golden.pairs(case, one, *came), STAGE)
    for name, shares in test_end_to_end.run(case).scores.items():
        np.testing.assert_array_equal(found[name], shares, err_msg=name)
