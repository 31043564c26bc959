"""A flipped byte anywhere in a file of ours is harmless or told: no number comes out wrong in silence."""

import random
import shutil

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import arrays, items, ledger, ledger_files, ledger_lines, storing, workdir
from emsedit_jax.run.checkpoint import Checkpoints
from tests.run import tiny

PLACES, IN_CI = 200, 20


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A finished run, with a checkpoint and a stage's result beside it."""
    path = tmp_path_factory.mktemp("flips") / "run"
    tiny.train(path, "--config.num_seq=3", "--config.ledger.snapshot_every=2")
    storing.write_json(path / "stage.json", {"seconds": {"train": 1.5}, "metrics_bytes": 7, "result": [0.25, None]})
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


READERS = {
    "config.json": by(lambda path: workdir.saved_config(path.parent).to_dict()),
    "summary.json": by(lambda path: storing.read_json(path, "")),
    "scores.json": by(items.read),
    "stage.json": by(lambda path: storing.read_json(path, "")),
    "edits.safetensors": by(lambda path: arrays.read(path, "edits", "")),
    "hypernet.safetensors": by(lambda path: arrays.read(path, "networks", "")),
    "edits/000001.safetensors": by(in_ledger(1)),
    "edits/snapshot-000002.safetensors": by(in_ledger(2, snapshot=True)),
}


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
    assert refused > count // 2


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
    files = sorted(path for path in (run / "checkpoints").rglob("*") if path.is_file())
    taken = set()
    for path in files:
        for place in flips(path, max(1, count // len(files))):
            found, wrong = Checkpoints(run / "checkpoints").newest()
            assert found is not None, f"{path}: byte {place}"
            done = found.place["done"]
            np.testing.assert_array_equal(found.arrays["state.0"], np.arange(300, dtype=np.float32) + done)
            assert done == 1 or wrong
            taken.add(done)
    assert taken == {0, 1}
