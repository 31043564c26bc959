"""The flags of several processes, and the mesh of a run."""

import os
import socket
import subprocess
import sys

import jax
import pytest

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.run import cli, cluster
from emsedit_jax.run.prepare import prepare
from tests.run import tiny

BY_HAND = ("--coordinator=127.0.0.1:1234", "--processes=2", "--process=1")


def test_processes_are_told_by_hand_or_by_what_started_them():
    assert tiny.command().cluster is None
    assert tiny.command("--cluster").cluster == ("", 0, -1)
    assert tiny.command(*BY_HAND).cluster == ("127.0.0.1:1234", 2, 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--processes=2",), "need --coordinator"),
        (("--process=0",), "need --coordinator"),
        (BY_HAND[:1], "needs --processes=N and --process=I"),
        ((*BY_HAND[:2], "--process=2"), "from 0 to N - 1, not 2 and 2"),
        (("--coordinator=127.0.0.1", *BY_HAND[1:]), "--coordinator=127.0.0.1: must be HOST:PORT"),
        (("--coordinator=::1:99", *BY_HAND[1:]), "must be HOST:PORT"),
    ],
)
def test_half_a_cluster_is_refused(flags, words):
    with pytest.raises(InputError, match=words):
        tiny.command(*flags)


def test_an_export_is_the_work_of_one_process(tmp_path):
    with pytest.raises(InputError, match="one process"):
        cli.read(["launch.py", *tiny.flags("--mode=export", f"--workdir={tmp_path}", "--to=x", *BY_HAND)])


def test_processes_that_do_not_find_each_other_are_told_how(monkeypatch):
    def fails(*args, **kwargs):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(InputError, match=r"coordinator_address should be defined.*--coordinator=HOST:PORT"):
        cluster.join(cluster.Cluster())


def asked_of_jax(monkeypatch, given, **environment):
    """How JAX is asked to join, in a process that was started with this environment."""
    found = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *by, **asked: found.append((by, asked)))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "JAX_LOCAL"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster.join(given)
    by, asked = found[0]
    return by, asked["local_device_ids"], asked["cluster_detection_method"]


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, []),  # a process on each of two hosts
        ({"SLURM_NTASKS": "16", "SLURM_STEP_NUM_NODES": "2"}, None),  # one for each device
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, None),
        ({"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2", "JAX_LOCAL_DEVICE_IDS": "0,1"}, None),  # JAX reads it
    ],
)
def test_a_process_alone_on_its_host_has_all_devices_of_it(environment, devices, monkeypatch):
    assert asked_of_jax(monkeypatch, cluster.Cluster(), **environment) == ((None, None, None), devices, None)


def test_by_hand_nothing_else_has_a_say(monkeypatch):
    asked = asked_of_jax(monkeypatch, cluster.Cluster("host:1", 2, 1), SLURM_NTASKS="2", SLURM_STEP_NUM_NODES="2")
    assert asked == (("host:1", 2, 1), None, "deactivate")


def test_the_devices_of_a_job_are_not_hidden():
    code = (
        "import jax\n"
        "from emsedit_jax.run import cluster\n"
        "cluster.join(cluster.Cluster())\n"
        "print(jax.process_count(), jax.config.values['jax_cuda_visible_devices'])\n"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_", "JAX_LOCAL"))}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        own["JAX_COORDINATOR_PORT"] = str(one.getsockname()[1])
    job = {"JOB_ID": "1", "STEP_NODELIST": "localhost", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    job |= {"STEP_NUM_NODES": "1"}
    own |= {f"SLURM_{name}": value for name, value in job.items()}
    said = subprocess.run(
        [sys.executable, "-c", code], env=own, capture_output=True, text=True, timeout=120, check=True
    )
    assert said.stdout.split() == ["1", "all"]


def test_the_mesh_is_in_force_and_said_in_words():
    with cluster.mesh_of(2, -1) as words:
        assert words == "2 x 4 devices (data x model)"
        assert (sharding.size("data"), sharding.size("model")) == (2, 4)
    assert sharding.alone()
    with cluster.mesh_of(1, 1) as words:
        assert words == ""
        assert sharding.alone()


def test_one_process_keeps_its_folder(tmp_path):
    assert cluster.agree(tmp_path) == tmp_path


@pytest.mark.parametrize("value", ["0", "-2", "x"])
def test_a_mesh_of_no_devices_is_refused(value):
    with pytest.raises(InputError, match=r"--config\.mesh\.model"):
        tiny.command(f"--config.mesh.model={value}")


def test_a_run_over_devices_says_so_and_has_the_scores_of_one(tmp_path, capsys):
    there = tiny.train(tmp_path / "there", "--config.mesh.data=2", "--config.mesh.model=4", editor="ultraedit")
    printed = capsys.readouterr().out
    assert "2 x 4 devices (data x model)" in printed
    assert "key/value heads are no multiple of the devices along model" in printed
    alone = tiny.train(tmp_path / "alone", editor="ultraedit")
    assert there["scores"] == alone["scores"]
    assert there["mesh"] == {"data": 2, "model": 4}


@pytest.mark.parametrize(
    ("saved", "here", "words"),
    [
        ((2, 4), 8, "2 x 4 devices (data x model)"),
        ((2, 8), 8, "1 x 8 devices (data x model), in place of the workdir's 2 x 8, which do not fit the 8 here"),
        ((4, 4), 8, "2 x 4 devices (data x model), in place of"),
        ((2, 4), 1, "one device, in place of the workdir's 2 x 4, which do not fit the 1 here: --config.mesh.data and"),
        ((2, 4), 2, "1 x 2 devices (data x model), in place of"),
        ((-1, 4), 6, "1 x 4 devices (data x model), in place of"),
        ((3, -1), 4, "1 x 4 devices (data x model), in place of"),
        ((-1, 1), 1, ""),
    ],
)
def test_a_saved_mesh_gives_way_to_the_devices_that_are_there(saved, here, words, monkeypatch):
    devices = jax.devices()[:here]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: here)
    with cluster.mesh_of(*saved, saved=True) as said:
        assert said.startswith(words)
        assert bool(said) == bool(words)
    if "in place" in words:
        with pytest.raises(InputError, match=r"--config\.mesh\.data="), cluster.mesh_of(*saved):
            pass


def test_devices_without_prompts_and_sites_of_ones_are_told(capsys):
    config = tiny.command("--config.editor.rows_at_once=1", "--config.dataset.n_edits=6", editor="ultraedit").config
    with cluster.mesh_of(8, 1):
        prepare(config)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mesh")]
    idle, filled = told
    assert "6 prompts of a batch are fewer than the 8 devices along data: 2 of these have none to edit" in idle
    assert (
        "edit sites do not go round the 8 devices along data: their solves are filled up, 2 of 32 x 56 with" in filled
    )
    with cluster.mesh_of(2, 4):
        prepare(config)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mesh")]
    assert len(told) == 1  # of the key/value heads


@pytest.mark.parametrize(("devices", "more"), [(-1, 2), (1, 2), (2, 4), (8, 16)])
def test_a_devices_programs_have_threads_beside_those_of_the_cores(devices, more, monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr(cluster.os, "cpu_count", lambda: 4)
    cluster.give_threads(devices)
    assert os.environ["NPROC"] == str(4 + more)


def test_a_choice_of_threads_stays(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    cluster.give_threads(8)
    assert os.environ["NPROC"] == "3"
