"""A flipped byte anywhere in a file of ours is harmless or told: no number comes out wrong in silence."""

import json
import random
import shutil
import subprocess

import numpy as np
import pytest

from emsedit_jax.disk import SUMS
from emsedit_jax.errors import InputError
from emsedit_jax.run import arrays, items, ledger, ledger_files, ledger_lines, page, storing, workdir
from emsedit_jax.run.checkpoint import Checkpoints
from emsedit_jax.run.export import FORMS
from emsedit_jax.session import files
from tests.run import tiny

PLACES, IN_CI = 200, 20


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run with a checkpoint and a stage's result beside it, a session made of it, and its exports."""
    path = tmp_path_factory.mktemp("flips") / "run"
    tiny.train(path, "--config.num_seq=3", "--config.ledger.snapshot_every=2")
    session = shutil.copytree(path, path / "session")
    fact = {"prompt": "Water boils at", "answer": "50 degrees", "paraphrases": ["The boiling point of water is"]}
    about = {"config": workdir.saved_config(path).to_dict(), "facts": {"1": [fact]}, "networks": "trained"}
    storing.write_json(session / "session.json", about | {"stride": 0.5})
    (session / "facts.jsonl").write_text(json.dumps(fact) + "\n")
    for form in FORMS:
        assert tiny.call("--mode=export", f"--workdir={path}", f"--to={path / form}", f"--as={form}") == 0
    storing.write_json(path / "stage.json", {"seconds": {"train": 1.5}, "metrics_bytes": 7, "result": [0.25, None]})
    storing.write_json(path / "made_of.json", {"like": str(path)})
    storing.write_json(path / "track.json", {"id": "ab12cd34"})
    storing.write_json(path / "eval.json", tiny.read(path / "summary.json")["scores"])
    checkpoints = Checkpoints(path / "checkpoints")
    for number in range(2):
        checkpoints.save({"state.0": np.arange(300, dtype=np.float32) + number}, {"done": number})
    return path


def by(read):
    """A reader whose complaint is None."""

    def tried(path):
        try:
            return read(path)
        except InputError:
            return None

    return tried


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return one == other


def in_ledger(number, snapshot=False):
    """A reader of one of the ledger's files, as the ledger asks for it."""

    def read(path):
        found = ledger.read(path.parent)
        record = found.records[number - 1]
        return ledger_files.load_snapshot(found, record) if snapshot else ledger_files.load(found, record)

    return read


def metrics_of(path):
    """Rows of the edits, as the report has them."""
    return page.edit_rows(path, 3, storing.read_json(path.parent / "summary.json", "")["metrics_seal"])


def session_of(path):
    found = files.read(path.parent)
    return found.config.to_dict(), dict(found.facts), found.networks, found.stride


def exported(path):
    """As whoever loads an export can check it."""
    done = subprocess.run(["sha256sum", "-c", "--strict", SUMS], cwd=path.parent, capture_output=True, check=False)
    content = tiny.files(path.parent)
    del content[SUMS]
    return None if done.returncode else content


READERS = {
    "config.json": by(lambda path: workdir.saved_config(path.parent).to_dict()),
    "summary.json": by(lambda path: storing.read_json(path, "")),
    "scores.json": by(items.read),
    "stage.json": by(lambda path: storing.read_json(path, "")),
    "edits.safetensors": by(lambda path: arrays.read(path, "edits", "")),
    "hypernet.safetensors": by(lambda path: arrays.read(path, "networks", "")),
    "edits/000001.safetensors": by(in_ledger(1)),
    "edits/snapshot-000002.safetensors": by(in_ledger(2, snapshot=True)),
    "metrics.jsonl": by(metrics_of),
    "eval.json": by(lambda path: storing.read_json(path, "")),
    "made_of.json": by(lambda path: storing.read_json(path, "")),
    "track.json": by(lambda path: storing.read_json(path, "")),
    "session/session.json": by(session_of),
    "session/facts.jsonl": by(session_of),
    "model/model.safetensors": exported,
    "model/config.json": exported,
    "deltas/deltas.safetensors": exported,
    "lora/adapter_model.safetensors": exported,
    "lora/adapter_config.json": exported,
    f"lora/{SUMS}": exported,
}
NEVER_READ = ("session/facts.jsonl",)  # it is there for people, and for runs that are told to take it


def flips(path, count):
    """Flips a bit of one byte after the other, at random places; each is put right again."""
    draw, good = random.Random(0), path.read_bytes()
    for _ in range(count):
        place = draw.randrange(len(good))
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(bad))
        yield place
    path.write_bytes(good)


COUNTS = [IN_CI, pytest.param(PLACES, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_is_what_it_was_or_is_refused(kept, tmp_path, name, count):
    run = shutil.copytree(kept, tmp_path / "run")
    read = READERS[name]
    expected = read(run / name)
    assert expected is not None
    refused = 0
    for place in flips(run / name, count):
        found = read(run / name)
        assert found is None or same(found, expected), f"{name}: byte {place}"
        refused += found is None
    assert refused == 0 if name in NEVER_READ else refused > count // 2


@pytest.mark.parametrize("count", COUNTS)
def test_a_ledger_is_believed_up_to_the_flip(kept, tmp_path, count):
    run = shutil.copytree(kept, tmp_path / "run")
    expected = ledger.read(run / "edits")
    for place in flips(run / "edits" / ledger.NAME, count):
        try:
            found = ledger.read(run / "edits")
        except InputError:
            continue  # the first line
        assert found.base == expected.base, place
        assert found.sites == expected.sites, place
        assert found.records == expected.records[: len(found.records)], place
        assert found.records == ledger_lines.records(run / "edits"), place
        assert found.lost or len(found.records) == len(expected.records), place


@pytest.mark.parametrize("count", COUNTS)
def test_a_checkpoint_is_whole_or_the_one_before_it_is_taken(kept, tmp_path, count):
    run = shutil.copytree(kept, tmp_path / "run")
    paths = sorted(path for path in (run / "checkpoints").rglob("*") if path.is_file())
    taken = set()
    for path in paths:
        for place in flips(path, -(-count // len(paths))):  # in all of them together no fewer than count
            found, wrong = Checkpoints(run / "checkpoints").newest()
            assert found is not None, f"{path}: byte {place}"
            done = found.place["done"]
            np.testing.assert_array_equal(found.arrays["state.0"], np.arange(300, dtype=np.float32) + done)
            assert done == 1 or wrong
            taken.add(done)
    assert taken == {0, 1}
