"""Ledgers by strangers whose every hash is right: whatever they say is read or refused with a named error."""

import copy
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsedit_jax.run import history, ledger, ledger_files, ledger_lines
from tests.faults.test_fuzz import CHANGES, VALUES, changed, many, refused_or_read
from tests.run import tiny

NUMBERS = st.sampled_from([0, 1, 2, 3, -1, True, 2**24, 2**63, 10**400, float("inf"), None])
WORDS = st.sampled_from(["", "k", "edit", "undo", "dense", "../x", "\ud800", "0" * 64, "000001.safetensors"])
NESTED = st.sampled_from([[], [1], [2, 2], [[1]], {}, {"ES": "high"}])
NEAR = NUMBERS | WORDS | NESTED  # what fields of a ledger hold, in places where it may not belong


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """(a ledger's folder, its lines as objects, the bytes of its first batch's file)."""
    path = tmp_path_factory.mktemp("fuzz") / "run"
    tiny.train(path, "--config.ledger.snapshot_every=2", editor="ultraedit")
    folder = path / "edits"
    lines = [json.loads(line) for line in (folder / ledger.NAME).read_text().splitlines()]
    undo = {"number": 3, "kind": "undo", "rows": [], "time": "", "scores": {}, "file": "", "bytes": 0, "sha256": ""}
    lines.append(undo | {"snapshot": "", "undone": [1], "hash": ""})
    return folder, lines, (folder / ledger_files.name_of(1)).read_bytes()


def write(folder, lines):
    """The lines as a ledger, each with the hash that it should have, as far as one can be told."""
    last, text = ledger_lines.START, ""
    for line in lines:
        if isinstance(line, dict):
            body = {name: value for name, value in line.items() if name != "hash"}
            try:
                last = ledger_lines.hash_of(last, body)
            except UnicodeEncodeError:
                last = "?"
            line = body | {"hash": last}
        text += json.dumps(line) + "\n"
    (folder / ledger.NAME).write_text(text)


def use(folder):
    """Everything that is done with a ledger without its model."""
    found = refused_or_read(ledger.read, folder)
    if found is None:
        return False
    assert ledger_lines.mark(found.records).records == len(found.records)
    refused_or_read(history.deltas, found)
    for numbers in ([1], [1, 2]):
        refused_or_read(history.undo, found, numbers)
    history.conflicts(found, found)
    return True


def put(lines, share, value, gone):
    """One place of the lines with another value in it, or without it; places are shares of all there are."""
    places = []

    def walk(at):
        for key in at if isinstance(at, dict) else range(len(at)):
            places.append((at, key))
            if isinstance(at[key], (dict, list)):
                walk(at[key])

    walk(lines)
    at, key = places[int(share * (len(places) - 1))]
    if gone:
        del at[key]
    else:
        at[key] = value


PUTS = st.lists(st.tuples(st.floats(0, 1), NEAR | VALUES, st.booleans()), min_size=1, max_size=3)


@many
@given(PUTS)
def test_objects_of_ledgers(book, puts):
    folder, good, first = book
    (folder / ledger_files.name_of(1)).write_bytes(first)
    lines = copy.deepcopy(good)
    for share, value, gone in puts:
        if lines:
            put(lines, share, value, gone)
    write(folder, lines)
    use(folder)


@many
@given(CHANGES)
def test_weight_changes_with_the_right_hash(book, changes):
    folder, good, first = book
    found = changed(first, changes)
    (folder / ledger_files.name_of(1)).write_bytes(found)
    lines = copy.deepcopy(good)
    lines[1] |= {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    lines[2]["snapshot"] = ""
    write(folder, lines)
    assert use(folder)
