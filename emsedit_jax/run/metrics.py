"""The rows of metrics.jsonl, each with a seal: the hash of what the row says and of the seal before it.

A row that was changed, lost or put elsewhere is told by that; the last seal stands in summary.json. A run that goes on
goes on from the last seal that is there, so what was damaged before stays so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsedit_jax.run import storing
from emsedit_jax.run.ledger_lines import START, hash_of

SEAL = "seal"


class Metrics:
    """The file to which a run adds its rows; some may be there."""

    def __init__(self, path: Path):
        self._path = path
        self._last: str | None = None  # not looked for yet: rows of a stage broken off are dropped first

    @property
    def seal(self) -> str:
        """Of the last row; `START` where there is none."""
        if self._last is None:
            self._last = _last_seal(self._path)
        return self._last

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row. Raises InputError where that cannot be done."""
        content = storing.plain(row)
        seal = hash_of(self.seal, content)
        storing.append_jsonl(self._path, content | {SEAL: seal})
        self._last = seal


def read(content: bytes, before: str = START) -> tuple[list[dict[str, Any]], str]:
    """(rows, the last one's seal) of lines behind the row with the seal `before`; a last line without an end is none.

    Raises ValueError where they are not what was written.
    """
    found, last = [], before
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        row, seal = _taken_apart(line)
        if not seal or seal != hash_of(last, row):
            raise ValueError(f"line {number} is not what was written, or those before it are not")
        found.append(row)
        last = seal
    return found, last


def _taken_apart(line: bytes) -> tuple[dict[str, Any], str]:
    """(what a line says, its seal); nothing of one that is no row."""
    try:
        row = dict(json.loads(line))
        return row, str(row.pop(SEAL))
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}, ""


def _last_seal(path: Path) -> str:
    """What the file's last line says; the rows behind one that says nothing do not fit it, and are told."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return START
    return (_taken_apart(lines[-2])[1] if len(lines) > 1 else "") or START
