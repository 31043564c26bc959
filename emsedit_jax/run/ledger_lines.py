"""The lines of a ledger: records, each with the hash of the one before. To be read where no model is.

A line that does not go on where the one before it ended is no record, and neither is any behind it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsedit_jax.errors import InputError
from emsedit_jax.run import storing

NAME = "ledger.jsonl"
EDIT, UNDO, DENSE = "edit", "undo", "dense"
MOST_BYTES = 2**31  # of ledger.jsonl: more is no ledger of ours
START = "0" * 64


@dataclasses.dataclass(frozen=True)
class Record:
    """One line: a batch of edits, the undoing of some, or many batches made into one."""

    number: int  # from 1
    kind: str
    rows: tuple[Mapping[str, Any], ...]  # facts: id, subject, prompt, answer
    time: str
    scores: Mapping[str, Any]  # means, in percent
    file: str  # "" for an undo
    bytes: int
    sha256: str  # of the file
    snapshot: str  # sha256 of the file of all edits after it; "" where there is none
    undone: tuple[int, ...]  # numbers of batches
    hash: str

    def plain(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "rows": [dict(row) for row in self.rows], "undone": list(self.undone)}


def lines(path: Path) -> list[bytes]:
    """The lines of the folder's ledger; the last is empty, unless it was cut off. Raises InputError."""
    file = path / NAME
    with storing.reading(file):
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file} is larger than any ledger ({MOST_BYTES:,} bytes).")
        return file.read_bytes().split(b"\n")


def records(path: Path) -> list[Record]:
    """What can be believed of the folder's ledger, whichever model it is of. Raises InputError where it cannot be read.

    Nothing where the first line is damaged.
    """
    first, *others = lines(path)
    found: list[Record] = []
    try:
        last = str(json.loads(first)["hash"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    for line in others[:-1]:
        record = believed(line, len(found) + 1, last)
        if record is None:
            break
        found.append(record)
        last = record.hash
    return found


def believed(line: bytes, number: int, last: str) -> Record | None:
    """The record of that number, if it goes on where the last one ended; None for anything else."""
    try:
        plain = dict(json.loads(line))
        found = record(plain)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    given = plain.pop("hash")
    sound = found.number == number and given == hash_of(last, plain)
    return found if sound and "/" not in found.file and not found.file.startswith(".") else None


def record(plain: Mapping[str, Any]) -> Record:
    """The record that a line holds. Raises KeyError and TypeError where it holds none."""
    fields = {field.name: plain[field.name] for field in dataclasses.fields(Record)}
    return Record(**fields | {"rows": tuple(plain["rows"]), "undone": tuple(plain["undone"])})


def hash_of(before: str, body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()
