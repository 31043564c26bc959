"""The lines of a ledger: records, each with the hash of the one before. To be read where no model is.

A line that does not go on where the one before it ended is no record, and neither is any behind it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emsedit_jax.errors import InputError
from emsedit_jax.run import storing

NAME = "ledger.jsonl"
EDIT, UNDO, DENSE = "edit", "undo", "dense"
MOST_BYTES = 2**31  # of ledger.jsonl: more is no ledger of ours
START = "0" * 64
UNMARKED = ("time", "hash", "dropped")  # fields that may differ between ledgers of the same edits
FACT = ("id", "subject", "prompt", "answer")  # the fields of a row
FILE = re.compile(r"[0-9]{6,12}\.safetensors")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_FILE_BYTES = 2**50


@dataclasses.dataclass(frozen=True)
class Record:
    """One line: a batch of edits, the undoing of some, or many batches made into one."""

    number: int  # from 1
    kind: str
    rows: tuple[Mapping[str, str], ...]  # facts: id, subject, prompt, answer
    time: str
    scores: Mapping[str, Any]  # means, in percent
    file: str  # "" for an undo
    bytes: int
    sha256: str  # of the file
    snapshot: str  # sha256 of the file of all edits after it; "" where there is none
    undone: tuple[int, ...]  # numbers of batches
    hash: str
    dropped: int = 0  # files of batches up to this one go: its snapshot has what they made together; 0: none do

    def plain(self) -> dict[str, Any]:
        told = {**vars(self), "rows": [dict(row) for row in self.rows], "undone": list(self.undone)}
        if not self.dropped:
            del told["dropped"]
        return told


class Mark(NamedTuple):
    """How far a ledger went when another file was written: without it, one that lost its last lines looks whole."""

    records: int
    content: str  # a hash of what they say, without their times and what is dropped: the same edits have the same one

    @classmethod
    def read(cls, plain: Any) -> Mark:
        """From JSON. Raises ValueError, KeyError and TypeError where it is none."""
        found = cls(plain["records"], plain["content"])
        _check(is_whole(found.records, 0, 10**12), isinstance(found.content, str))
        return found


NO_LEDGER = Mark(0, "")


def mark(records: Sequence[Record]) -> Mark:
    """Where a ledger with these records stands."""
    content = START
    for record in records:
        told = {name: value for name, value in record.plain().items() if name not in UNMARKED}
        content = hash_of(content, told)
    return Mark(len(records), content)


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
        given = plain.pop("hash")
        return found if found.number == number and given == hash_of(last, plain) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def record(plain: Mapping[str, Any]) -> Record:
    """The record that a line holds. Raises ValueError, KeyError and TypeError where it holds none.

    A hash says that nothing was changed, not who wrote it: whatever reads records relies on what is asked for here.
    """
    plain = {"dropped": 0, **plain}
    fields = {field.name: plain[field.name] for field in dataclasses.fields(Record)}
    _check(is_whole(fields["number"], 1, 10**12), fields["kind"] in (EDIT, UNDO, DENSE))
    _check(isinstance(fields["rows"], (list, tuple)), isinstance(fields["undone"], (list, tuple)))
    _check(isinstance(fields["scores"], dict), isinstance(fields["time"], str))
    _check(*map(_is_fact, fields["rows"]))
    _check(*(value is None or _is_number(value) for value in fields["scores"].values()))
    _check(*(is_whole(number, 1, fields["number"] - 1) for number in fields["undone"]))
    _check(is_whole(fields["bytes"], 0, MOST_FILE_BYTES))
    undoes = fields["kind"] == UNDO
    _check(fields["file"] == "" if undoes else bool(FILE.fullmatch(fields["file"])), bool(fields["undone"]) == undoes)
    for name, may_lack in (("sha256", undoes), ("snapshot", True), ("hash", False)):
        _check(bool(SHA256.fullmatch(fields[name])) or (may_lack and fields[name] == ""))
    _check(is_whole(fields["dropped"], 0, fields["number"] - 1), not fields["dropped"] or bool(fields["snapshot"]))
    return Record(**fields | {"rows": tuple(plain["rows"]), "undone": tuple(plain["undone"])})


def _check(*sound: bool) -> None:
    if not all(sound):
        raise ValueError("a field that no record has")


def is_whole(value: Any, least: int, most: int) -> bool:
    """Whether it is a whole number of that range, and not one of JSON's other things that Python takes for one."""
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return math.isfinite(value) if type(value) is float else is_whole(value, -(2**53), 2**53)


def _is_fact(row: Any) -> bool:
    return isinstance(row, dict) and sorted(row) == sorted(FACT) and all(isinstance(one, str) for one in row.values())


def hash_of(before: str, body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()
