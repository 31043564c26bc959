"""Files and flags from strangers: whatever they hold, they are read or refused with a named error."""

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from emsedit_jax.data import easyedit, records
from emsedit_jax.lm import families, hf
from emsedit_jax.run import arrays, cli
from emsedit_jax.run.command import FLAGS as NAMED
from tests.faults import strangers
from tests.faults.strangers import READERS, refused_or_read
from tests.run import tiny

CASES = int(os.environ.get("EMSEDIT_FUZZ", "100"))  # of each kind
many = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
WORDS = st.text(max_size=12) | st.sampled_from(["", "Peru", "\0", "\ud800", "a" * 5000, "{}", "../x", "-1", "1e999"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


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
        st.floats(0, 1) | st.floats(0, 0.02) | st.floats(0.98, 1),  # headers stand in front, or at the end
        st.integers(0, 3),
        st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 2**62, 2**31, 255, ord('"'), ord("{"), ord("9")]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module", params=READERS)
def reader(request, tmp_path_factory):
    return READERS[request.param](tmp_path_factory.mktemp("fuzz"))


def test_what_is_good_is_read(reader):
    reader.read(reader.good)


@many
@given(CHANGES)
def test_changed_bytes(reader, changes):
    refused_or_read(reader.read, changed(reader.good, changes))


# ---------------------------------------------------------------------------------------------- rows


KEYS = {key for row in strangers.ROWS for key in row} | {"prompt", "answer", "requested_rewrite", "case_id"}
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


# ---------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(a model's folder, its configuration)."""
    folder = tmp_path_factory.mktemp("fuzz")
    reader = READERS["config.json"](folder)
    return folder, json.loads(reader.good)


LENGTHS = st.sampled_from([0, -1, 1, 2**31, 2**40, 10**12, -(10**12), 10**400, 1e308, 0.5])
KINDS = st.sampled_from(list(families.FAMILIES)) | WORDS
OF_CONFIGS = ("layer_types", "max_window_layers", "no_rope_layers", "rope_parameters", "rope_scaling", "sliding_window")
SWITCHES = ("use_sliding_window", "tie_word_embeddings", "attention_bias", "n_layer", "n_embd", "n_head", "n_positions")


@many
@given(st.data())
def test_parameters_of_a_changed_configuration(model, data):
    folder, good = model
    names = st.sampled_from([*good, *OF_CONFIGS, *SWITCHES]) | WORDS
    fields = data.draw(st.dictionaries(names, LENGTHS | VALUES | KINDS, max_size=4))
    kind = data.draw(st.just({}) | st.fixed_dictionaries({"model_type": KINDS}))
    (folder / "config.json").write_text(json.dumps(good | kind | fields))
    refused_or_read(lambda: hf.load_params(folder, *families.read_folder(folder)))


@many
@given(st.dictionaries(WORDS, VALUES, max_size=4) | VALUES)
def test_shard_indexes(tmp_path_factory, weight_map):
    folder = tmp_path_factory.getbasetemp()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = refused_or_read(hf.weight_files, folder)
    assert not found or {path.parent for path in found.values()} == {folder}


# ---------------------------------------------------------------------------------------------- arrays


SHAPES = st.lists(st.integers(0, 3), max_size=4)
TYPES = st.sampled_from(["<f4", "<f8", "<f2", "<i8", "<u1", "?", "float8_e4m3fn"])
PARTS = ("0.0.x", "0.0.y", "1.0.y", "0.1.y", "-1.0.y", "999999999999.0.y", "y", "a.0")
NAMES = st.sampled_from(PARTS) | st.text(max_size=3)
ARRAYS = st.dictionaries(NAMES, st.builds(np.zeros, SHAPES, TYPES), max_size=3)


@many
@given(ARRAYS, st.dictionaries(st.sampled_from(["format", "sha256", "model"]) | WORDS, VALUES, max_size=4) | VALUES)
def test_what_arrays_say_of_themselves(tmp_path_factory, found, about):
    path = tmp_path_factory.getbasetemp() / "about.safetensors"
    save_file(found, path, metadata={arrays.KEY: json.dumps(about)})
    refused_or_read(arrays.read, path, "edits", "")
    if isinstance(about, dict):
        arrays.write(path, found, "edits", about)
        refused_or_read(arrays.read, path, "edits", "")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    return strangers.book(tmp_path_factory.mktemp("fuzz") / "edits")


@many
@given(ARRAYS)
def test_factors(book, found):
    save_file(found, book.path / book.records[0].file)
    refused_or_read(strangers.factors, book)


# ---------------------------------------------------------------------------------------------- flags


FIELDS = [name for name, _ in cli.settings.flatten(cli.load_config(strangers.CONFIG))]
SETTINGS = st.sampled_from(FIELDS) | WORDS
FLAGS = st.one_of(
    st.builds("--config.{}={}".format, SETTINGS, WORDS | st.integers() | st.floats() | VALUES),
    st.builds("--{}={}".format, st.sampled_from(NAMED[1:]) | WORDS, WORDS),
    st.builds("--noconfig.{}".format, SETTINGS),
    WORDS,
)


@many
@given(st.lists(FLAGS, max_size=3))
def test_flags(flags):
    command = refused_or_read(cli.read, ["launch.py", f"--config={tiny.ROOT / 'configs/quickstart.py'}", *flags])
    assert command is None or command.config.is_locked
