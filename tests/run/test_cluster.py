"""The flags of several processes, and the mesh of a run."""

import os

import jax
import pytest

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.run import cli, cluster
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
