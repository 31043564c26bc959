"""Edits by hand over eight devices: what is written, said and scored is that of one device."""

import asyncio
import json

import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.run import arrays, cluster
from tests.quick_compiles import quick_compiles
from tests.run import tiny
from tests.session.small import FACTS

__all__ = ["quick_compiles"]
CONFIG = [flag for flag in tiny.flags(editor="ultraedit") if not flag.startswith("--config.dataset.train_path")]
MESH = ("--config.mesh.data=2", "--config.mesh.model=4")
REL = 1e-5  # of the largest: sums in another order
SAID = "mesh     2 x 4 devices (data x model)"


@pytest.fixture(scope="module")
def alone(tmp_path_factory, quick_compiles):
    """Facts edited in on one device; tests look and do not touch."""
    folder = tmp_path_factory.mktemp("meshes")
    return edited(folder, "alone")


def edited(folder, name, *more):
    facts = folder / "facts.jsonl"
    facts.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS[:2]))
    assert tiny.call(*CONFIG, *more, "--mode=edit", f"--facts={facts}", f"--workdir={folder / name}") == 0
    return folder / name


def told(capsys):
    """(the lines about the devices, the others but for the first)."""
    lines = capsys.readouterr().out.splitlines()[1:]
    return [line for line in lines if line.startswith("mesh")], [line for line in lines if not line.startswith("mesh")]


def test_edits_by_hand_over_devices_are_those_of_one(alone, tmp_path, capsys):
    capsys.readouterr()
    there = edited(tmp_path, "there", *MESH)
    mesh, said = told(capsys)
    assert mesh[0] == SAID
    assert "key/value heads are no multiple" in mesh[1]
    expected = arrays.read(alone / "edits.safetensors", "edits", "")[1]
    found = arrays.read(there / "edits.safetensors", "edits", "")[1]
    assert found.keys() == expected.keys()
    for name, delta_kv in expected.items():
        largest = np.abs(delta_kv).max()
        assert largest > 1e-3
        np.testing.assert_allclose(found[name], delta_kv, rtol=0, atol=REL * largest)
    scores = [
        json.loads((one / "edits" / "ledger.jsonl").read_text().splitlines()[1])["scores"] for one in (alone, there)
    ]
    assert scores[0] == scores[1] != {}
    assert any("Rome" in line for line in said)


def test_what_is_said_over_devices_is_what_one_says(alone, capsys):
    ask = ("--mode=generate", f"--workdir={alone}", "--prompt=The Eiffel Tower is in")
    capsys.readouterr()
    assert tiny.call(*ask) == 0
    mesh, said = told(capsys)
    assert (mesh, len(said)) == ([], 2)
    assert said[0].removeprefix("before") != said[1].removeprefix("after ")
    assert tiny.call(*ask, *MESH) == 0
    mesh, there = told(capsys)
    assert mesh[0] == SAID
    assert there == said


def test_scores_by_hand_over_devices_are_those_of_one(alone, capsys):
    score = ("--mode=eval", f"--workdir={alone}")
    capsys.readouterr()
    assert tiny.call(*score) == 0
    mesh, said = told(capsys)
    assert (mesh, said[0]) == ([], "2 facts, answer tokens right, %")
    assert tiny.call(*score, *MESH) == 0
    mesh, there = told(capsys)
    assert mesh[0] == SAID
    assert there == said


def test_the_page_s_thread_is_on_the_mesh_of_its_program(desk):
    with cluster.mesh_of(2, 4):
        made = type(desk)(desk.session, desk.path)
    found = asyncio.run(made.do(lambda: (sharding.size("data"), sharding.size("model"))))
    made.close()
    assert found == (2, 4)


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (
            ["--mode=generate", "--workdir=WORKDIR", "--config.mesh.model=16"],
            "16 devices are asked for, but there are 8",
        ),
        (["--mode=generate", "--workdir=WORKDIR", "--config.mesh.model=0"], "--config.mesh.model=0: must be -1 or"),
        (["--mode=eval", "--workdir=WORKDIR", "--cluster"], "of edits by hand is the work of one process"),
        (["--mode=serve", "--workdir=WORKDIR", "--cluster"], "--mode=serve is the work of one process"),
        (["--mode=edit", "--facts=x.csv", "--cluster"], "--mode=edit is the work of one process"),
        (["--mode=undo", "--workdir=WORKDIR", "--batches=1", "--config.mesh.model=2"], "name the file before it with"),
        (["--mode=train", "--config.mesh.model=2"], "name the file before it with --config=FILE"),
    ],
)
def test_mistakes_about_devices_are_told_in_one_line(alone, args, fault, capsys):
    capsys.readouterr()
    assert tiny.call(*(arg.replace("WORKDIR", str(alone)) for arg in args)) == 2
    said = capsys.readouterr().err
    assert fault in said
    assert said.count("\n") == 1
