"""Ledgers by strangers whose every hash is right: whatever they say is read or refused with a named error."""

import copy
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import bookkeeping, history, ledger, ledger_files, ledger_lines
from emsedit_jax.types import SiteGroup
from tests.faults.test_fuzz import CHANGES, VALUES, changed, many, refused_or_read

NUMBERS = st.sampled_from([0, 1, 2, 3, -1, True, 2**20, 2**63, 10**400, float("inf"), None])
WORDS = st.sampled_from(["", "k", "edit", "undo", "dense", "../x", "\ud800", "0" * 64, "000001.safetensors"])
NESTED = st.sampled_from([[], [1], [2, 2], [[1]], {}, {"ES": "high"}])
NEAR = NUMBERS | WORDS | NESTED  # what fields of a ledger hold, in places where it may not belong


SITES = (SiteGroup(8, 12, (3, 4), ("mlp.gate",) * 2, ("model.layers.3.mlp.gate_proj", "model.layers.4.mlp.gate_proj")),)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of a ledger of factors, a whole change with a snapshot behind it, and an undoing.

    `good` gives what it held at first.
    """
    made = ledger.create(tmp_path_factory.mktemp("fuzz") / "edits", Identity("a model", "0123"), SITES)
    x_snk, y_snv, delta_skv = (np.ones((2, *size), np.float32) for size in ((5, 8), (5, 12), (8, 12)))
    for number, part in enumerate([(x_snk, y_snv), (None, delta_skv)], 1):
        fact = {"id": "row 1", "subject": "Peru", "prompt": "Where is Peru?", "answer": f"Continent {number}"}
        name, snapshot = ledger_files.name_of(number), ""
        if number == 2:
            snapshot = ledger_files.write_dense(made.path / ledger_files.snapshot_of(number), (6 * delta_skv,))
        made.append("edit", [fact], {"ES": 50.0}, name, ledger_files.write(made.path / name, [[part]]), snapshot)
    history.undo(made, [1])[1]()
    lines = [json.loads(line) for line in (made.path / ledger.NAME).read_text().splitlines()]
    lines[2]["dropped"] = 0  # one more field to be changed
    (made.path / "lines.json").write_text(json.dumps(lines))
    (made.path / "first").write_bytes((made.path / ledger_files.name_of(1)).read_bytes())
    return made.path


def good(folder):
    """(the ledger's lines as objects, the bytes of its first batch's file)."""
    return json.loads((folder / "lines.json").read_text()), (folder / "first").read_bytes()


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
    bookkeeping.lacks(folder, ledger_lines.mark(found.records))
    assert all(path.parent == folder for path in ledger_files.dropped(found))
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
        at[key] = copy.deepcopy(value)


PUTS = st.lists(st.tuples(st.floats(0, 1), NEAR | VALUES, st.booleans()), min_size=1, max_size=3)


@many
@given(PUTS)
def test_objects_of_ledgers(book, puts):
    lines, first = good(book)
    (book / ledger_files.name_of(1)).write_bytes(first)
    for share, value, gone in puts:
        if lines:
            put(lines, share, value, gone)
    write(book, lines)
    use(book)


@many
@given(CHANGES)
def test_weight_changes_with_the_right_hash(book, changes):
    lines, first = good(book)
    found = changed(first, changes)
    (book / ledger_files.name_of(1)).write_bytes(found)
    lines[1] |= {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    lines[2]["snapshot"] = ""
    write(book, lines)
    assert use(book)
