"""The ledger of a run's edits: a line a record, each with the hash of the one before, and a file of factors a batch.

`edits/ledger.jsonl` says which facts were written when, what they scored and which file holds the weight change.
Nothing in it is ever changed: undoing is a record of its own, and which files go is said before they do. A line that is
damaged ends what can be believed; what stands before it is used, and what is lost is told.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsedit_jax import disk
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import ledger_lines, storing
from emsedit_jax.run.ledger_lines import DENSE, EDIT, NAME, NO_LEDGER, START, UNDO, Mark, Record, hash_of, mark
from emsedit_jax.types import SiteGroup, Sites

__all__ = ["DENSE", "EDIT", "NAME", "UNDO", "Ledger", "Record", "check_base", "check_present", "create", "cut", "read"]

FORMAT = "emsedit-jax ledger 1"
MOST_WIDE, MOST_SITES = 2**24, 2**16  # of a weight, and how many: more is no model's


@dataclasses.dataclass
class Ledger:
    """The records that can be believed, of edits of one model at some sites."""

    path: Path  # the folder
    base: Identity
    sites: Sites
    records: list[Record]
    lost: str = ""  # what cannot be believed, in words
    damaged: int = 0  # records that cannot be; a last line that was cut off is none
    good_bytes: int = 0  # length of what can

    @property
    def last(self) -> str:
        """The hash that the next record goes on from."""
        return self.records[-1].hash if self.records else self.header()["hash"]

    def header(self) -> dict[str, Any]:
        body = {"format": FORMAT, **self.base.about(), "sites": [group._asdict() for group in self.sites]}
        return {**body, "hash": hash_of(START, body)}

    def append(
        self,
        kind: str,
        rows: Sequence[Mapping[str, Any]] = (),
        scores: Mapping[str, Any] | None = None,
        file: str = "",
        digest: str = "",
        snapshot: str = "",
        undone: Sequence[int] = (),
        dropped: int = 0,
    ) -> Record:
        """Adds a record and waits until the disk has it. Raises InputError where it cannot be written."""
        size = (self.path / file).stat().st_size if file else 0
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        told = storing.plain({"rows": list(rows), "scores": scores or {}})
        body = {"number": len(self.records) + 1, "kind": kind, **told, "time": now, "file": file}
        body |= {"bytes": size, "sha256": digest, "snapshot": snapshot, "undone": list(undone)}
        body |= {"dropped": dropped} if dropped else {}
        record = ledger_lines.record({**body, "hash": hash_of(self.last, body)})
        self._write(json.dumps(record.plain(), ensure_ascii=False))
        self.records.append(record)
        return record

    def _write(self, line: str) -> None:
        """Adds a line behind the good ones."""
        path = self.path / NAME
        begins = not path.exists()
        with storing.writing(path), path.open("w+b" if begins else "r+b") as file:
            file.truncate(self.good_bytes)
            file.seek(self.good_bytes)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            if begins:
                disk.sync_folder(self.path)
            self.good_bytes = file.tell()

    def active(self, at: int | None = None) -> list[Record]:
        """The batches in force after so many records, in order; all records by default."""
        seen = self.records[:at]
        undone = {number for record in seen for number in record.undone}
        return [record for record in seen if record.kind != UNDO and record.number not in undone]

    def dropped(self, at: int | None = None) -> int:
        """The last batch whose file goes, by what so many records say; all records by default; 0: none does."""
        return max((record.dropped for record in self.records[:at]), default=0)

    @property
    def file_bytes(self) -> int:
        """What the folder takes on the disk."""
        return sum(path.stat().st_size for path in self.path.iterdir() if path.is_file())


def row(fact: EditRecord) -> dict[str, str]:
    """A fact as records have it."""
    return {"id": fact.source, "subject": fact.subject, "prompt": fact.edit.prompt, "answer": fact.edit.answer}


def create(path: Path, base: Identity, sites: Sites) -> Ledger:
    """An empty ledger in a folder that has none. Raises InputError where it cannot be written."""
    with storing.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        disk.sync_folder(path.parent)
    made = Ledger(path, base, sites, [])
    made._write(json.dumps(made.header(), ensure_ascii=False))
    return made


def check_present(path: Path) -> None:
    """Raises InputError where the folder holds no ledger."""
    if not (path / NAME).is_file():
        about = f"{path.parent} is no run with a ledger, which would be {path.name}/{NAME} (docs/WORKDIR.md)"
        raise InputError(f"{about}; name another --workdir.")


def read(path: Path) -> Ledger:
    """The ledger in the folder, its chain checked record by record; no file of factors is touched.

    Raises InputError where there is none, or its first line is damaged.
    """
    check_present(path)
    file, lines = path / NAME, ledger_lines.lines(path)
    found = _opened(path, lines[0])
    found.good_bytes = len(lines[0]) + 1
    for line in lines[1:-1]:
        record = ledger_lines.believed(line, len(found.records) + 1, found.last)
        if record is None:
            break
        found.records.append(record)
        found.good_bytes += len(line) + 1
    else:
        if lines[-1]:
            found.lost = f"{file}: the last line is cut off; the {len(found.records)} records before it are used"
        return found
    rest = len(lines) - 2 - len(found.records)
    found.damaged = rest
    found.lost = f"{file}: record {len(found.records) + 1} is damaged; it and {rest - 1} after it are not used"
    return found


def mark_of(path: Path) -> Mark:
    """Where the folder's ledger stands, if it has one that can be read."""
    try:
        return mark(read(path).records)
    except InputError:
        return NO_LEDGER


def check_base(found: Ledger, base: Identity) -> None:
    """Raises InputError where the ledger's edits are of another model."""
    if not base.is_of(found.base.about()):
        remedy = base.remedy(found.base.about(), "give it the model that was edited, as it was then")
        raise InputError(f"{found.path} holds edits of {found.base}, this run has {base}; {remedy}.")


def cut(found: Ledger, count: int) -> None:
    """Forgets the records behind the first `count`, of a run that goes on from there; their files are written over."""
    if len(found.records) > count:
        lines = (found.path / NAME).read_bytes().split(b"\n")
        found.good_bytes = sum(len(line) + 1 for line in lines[: count + 1])
        with storing.writing(found.path), (found.path / NAME).open("r+b") as file:
            file.truncate(found.good_bytes)
            os.fsync(file.fileno())
        del found.records[count:]


def _opened(path: Path, line: bytes) -> Ledger:
    try:
        header = dict(json.loads(line))
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']!r}")
        if not all(isinstance(header[name], str) for name in ("model", "weights")):
            raise ValueError("it is of no model")
        if not isinstance(header["sites"], list) or not 0 < len(header["sites"]) <= MOST_SITES:
            raise ValueError("it is of no sites")
        groups = tuple(_group(one) for one in header["sites"])
        found = Ledger(path, Identity(header["model"], header["weights"]), groups, [])
        if header != json.loads(json.dumps(found.header())):
            raise ValueError("its first line is not what was written")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path / NAME} is damaged, or no ledger of this program ({error}).") from None
    return found


def _group(plain: Mapping[str, Any]) -> SiteGroup:
    """Raises ValueError, KeyError and TypeError for anything that is no group of sites."""
    layers, modules, names = (plain[name] for name in ("layers", "modules", "names"))
    sound = all(ledger_lines.is_whole(plain[side], 1, MOST_WIDE) for side in ("k", "v")) and plain["wide"] in ("k", "v")
    sound &= all(isinstance(one, list) for one in (layers, modules, names))
    sound &= all(ledger_lines.is_whole(layer, 0, MOST_SITES) for layer in layers)
    sound &= all(isinstance(one, str) for one in (*modules, *names))
    if not sound or not len(layers) == len(modules) == len(names) > 0 or len(names) > MOST_SITES:
        raise ValueError("sites that no model has")
    return SiteGroup(plain["k"], plain["v"], tuple(layers), tuple(modules), tuple(names), wide=plain["wide"])
