"""Files and flags from strangers: whatever they hold, they are read or refused with a named error."""

import json
import os
import shutil
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsedit_jax.data import easyedit, records
from emsedit_jax.errors import InputError
from emsedit_jax.lm import families, gguf_files, hf
from emsedit_jax.run import cli, ledger
from emsedit_jax.run.command import FLAGS as NAMED
from tests.lm import tiny_gguf
from tests.run import tiny

CASES = int(os.environ.get("EMSEDIT_FUZZ", "100"))  # of each kind
many = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
WORDS = st.text(max_size=12) | st.sampled_from(["", "Peru", "\0", "\ud800", "a" * 5000, "{}", "../x", "-1", "1e999"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def refused_or_read(read, *args):
    """Calls it; nothing but an InputError may come of it."""
    try:
        return read(*args)
    except InputError:
        return None


# ---------------------------------------------------------------------------------------------- changed bytes


def changed(good: bytes, changes: list[tuple[float, int, int]]) -> bytes:
    """The bytes with some of them overwritten, cut out or put in; places are shares of the length."""
    found = bytearray(good)
    for share, kind, value in changes:
        place = int(share * max(len(found) - 1, 0))
        if kind == 0 and found:
            found[place] = value % 256
        elif kind == 1:
            del found[place : place + value % 64]
        elif kind == 2:
            found[place:place] = struct.pack("<q", value)
        elif found:
            found[place : place + 8] = struct.pack("<q", value)
    return bytes(found)


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1) | st.floats(0, 0.02),  # headers stand in front
        st.integers(0, 3),
        st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**62, 2**31, 255, ord('"'), ord("{"), ord("9")]),
    ),
    min_size=1,
    max_size=6,
)


# ---------------------------------------------------------------------------------------------- rows


def rows_of(path):
    return json.loads(path.read_text())[:3]


ROWS = {"zsre": rows_of(tiny.DATA / "zsre_eval.json")}
KEYS = {key for row in ROWS["zsre"] for key in row} | {"prompt", "answer", "requested_rewrite", "case_id"}
KEYS = sorted({*KEYS, *easyedit.FIELDS, *easyedit.ARGUMENTS, *easyedit.INPUTS})
QUESTIONS = st.dictionaries(st.sampled_from(["prompt", "ground_truth"]), VALUES)
SORTS = st.dictionaries(WORDS, QUESTIONS | st.lists(QUESTIONS, max_size=3))
OBJECTS = st.dictionaries(st.sampled_from(KEYS) | WORDS, VALUES | SORTS, max_size=5)


@many
@given(
    st.sampled_from([name for name in records.READERS if name != "worldfacts"]),
    st.sampled_from(["json", "jsonl", "csv"]),
    st.lists(OBJECTS | VALUES, max_size=3) | OBJECTS,
    st.sampled_from(["train", "eval"]),
)
def test_rows(tmp_path_factory, name, form, rows, role):
    path = tmp_path_factory.getbasetemp() / f"rows.{form}"
    text = "\n".join(map(json.dumps, rows)) if form == "jsonl" and isinstance(rows, list) else json.dumps(rows)
    path.write_text(text)
    refused_or_read(lambda: records.read(name, path, role=role))


@many
@given(st.sampled_from(["json", "jsonl", "csv"]), CHANGES)
def test_bytes_of_rows(tmp_path_factory, form, changes):
    good = json.dumps(ROWS["zsre"]) if form == "json" else "\n".join(map(json.dumps, ROWS["zsre"]))
    good = "prompt,answer\nWhere is Peru?,South America\n" if form == "csv" else good
    path = tmp_path_factory.getbasetemp() / f"bytes.{form}"
    path.write_bytes(changed(good.encode(), changes))
    name = "facts" if form == "csv" else "zsre"
    refused_or_read(lambda: records.read(name, path, role="eval"))


# ---------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(a model's folder, its configuration, the bytes of its weights)."""
    folder = shutil.copytree(tiny.MODEL, tmp_path_factory.mktemp("fuzz") / "model")
    config, _ = families.read_folder(folder)
    return folder, config, (folder / "model.safetensors").read_bytes()


@many
@given(CHANGES)
def test_safetensors(model, changes):
    folder, config, good = model
    (folder / "model.safetensors").write_bytes(changed(good, changes))
    refused_or_read(hf.load_params, folder, config)


@many
@given(CHANGES)
def test_configurations_of_models(model, changes):
    folder, *_ = model
    config = (tiny.MODEL / "config.json").read_bytes()
    (folder / "config.json").write_bytes(changed(config, changes))
    refused_or_read(families.read_folder, folder)


@many
@given(st.dictionaries(WORDS, VALUES, max_size=4) | VALUES)
def test_shard_indexes(model, weight_map):
    folder, *_ = model
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = refused_or_read(hf.weight_files, folder)
    assert not found or {path.parent for path in found.values()} == {folder}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """(a folder, the bytes of a GGUF file)."""
    folder = tmp_path_factory.mktemp("fuzz")
    tiny_gguf.write_gguf(folder / "good.gguf")
    return folder, (folder / "good.gguf").read_bytes()


@many
@given(CHANGES)
def test_gguf(gguf, changes):
    folder, good = gguf
    (folder / "bad.gguf").write_bytes(changed(good, changes))
    refused_or_read(gguf_files.convert, folder / "bad.gguf", folder)


# ---------------------------------------------------------------------------------------------- ledgers and flags


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """(a ledger's folder, the bytes of its lines)."""
    path = tmp_path_factory.mktemp("fuzz") / "run"
    tiny.train(path, editor="ultraedit")
    return path / "edits", (path / "edits" / ledger.NAME).read_bytes()


@many
@given(CHANGES)
def test_ledgers(book, changes):
    folder, good = book
    (folder / ledger.NAME).write_bytes(changed(good, changes))
    refused_or_read(ledger.read, folder)


FIELDS = [name for name, _ in cli.settings.flatten(cli.load_config(str(tiny.ROOT / "configs/quickstart.py")))]
NAMES = st.sampled_from(FIELDS) | WORDS
FLAGS = st.one_of(
    st.builds("--config.{}={}".format, NAMES, WORDS | st.integers() | st.floats() | VALUES),
    st.builds("--{}={}".format, st.sampled_from(NAMED[1:]) | WORDS, WORDS),
    st.builds("--noconfig.{}".format, NAMES),
    WORDS,
)


@many
@given(st.lists(FLAGS, max_size=3))
def test_flags(flags):
    command = refused_or_read(cli.read, ["launch.py", f"--config={tiny.ROOT / 'configs/quickstart.py'}", *flags])
    assert command is None or command.config.is_locked
