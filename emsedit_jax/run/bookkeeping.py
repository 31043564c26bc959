"""Writes the ledger of a run along its edits, each batch while the next one is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emsedit_jax import sharding
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.edit.factors import Factors
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import ledger as book
from emsedit_jax.run import ledger_files as files
from emsedit_jax.run.ledger_lines import NO_LEDGER, Mark, mark
from emsedit_jax.types import Deltas, Sites


def lacks(path: Path, there: Mark) -> str:
    """What is missing of the ledger's first records, up to where it stood, and of their files; "" where nothing is."""
    try:
        found = book.read(path)
    except InputError as error:
        return str(error)
    records = found.records[: there.records]
    if len(records) < there.records:
        return found.lost or f"{path / book.NAME} has {len(records)} records of {there.records}"
    if mark(records) != there:
        return f"{path / book.NAME} is not the ledger that this run wrote"
    gone = [path / record.file for record in records if not _is_whole(path / record.file, record.bytes)]
    return f"{gone[0]} is gone, or cut off" if gone else ""


def _is_whole(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


class Bookkeeper:
    """The ledger of a run in its making; the first process writes, all must call alike."""

    def __init__(self, path: Path, base: Identity, sites: Sites, snapshot_every: int):
        """`snapshot_every`: batches between two snapshots of all edits; 0: none."""
        self._path, self._base, self._sites, self._every = path, base, sites, snapshot_every
        self._pool = ThreadPoolExecutor(1)
        self._waiting: Future | None = None
        self._ledger: book.Ledger | None = None

    def begin(self, done: int) -> None:
        """Goes on behind so many batches, which `lacks` has found there, or begins anew.

        Raises InputError where the ledger is of another model.
        """
        if not sharding.is_first():
            return
        if not done:
            self._ledger = book.create(self._path, self._base, self._sites)
            return
        self._ledger = book.read(self._path)
        book.check_base(self._ledger, self._base)
        book.cut(self._ledger, done)

    def mark(self) -> Mark:
        """Where the ledger stands, once all of it is on the disk; in the first process alone."""
        self.flush()
        return mark(self._ledger.records) if self._ledger is not None else NO_LEDGER

    def note(
        self,
        number: int,
        records: Sequence[EditRecord],
        steps: Sequence[Sequence[Factors]],
        scores: Mapping[str, Any],
        deltas: Deltas,
    ) -> None:
        """A batch, counted from 1, and the edits after it: on their way to the disk, once those before are there."""
        rows = [book.row(one) for one in records]
        held = files.gathered(steps)
        due = bool(self._every) and number % self._every == 0
        whole = tuple(map(sharding.host, deltas)) if due else None
        self.flush()
        if self._ledger is not None:
            self._waiting = self._pool.submit(self._write, self._ledger, number, rows, held, scores, whole)

    def _write(
        self,
        ledger: book.Ledger,
        number: int,
        rows: Sequence[Mapping[str, Any]],
        steps: files.Steps,
        scores: Mapping[str, Any],
        whole: Sequence[Any] | None,
    ) -> None:
        name = files.name_of(number)
        digest = files.write(self._path / name, steps)
        snapshot = "" if whole is None else files.write_dense(self._path / files.snapshot_of(number), whole)
        ledger.append(book.EDIT, rows, scores, name, digest, snapshot)

    def flush(self) -> None:
        """Waits until all of it is on the disk. Raises InputError where it could not be written."""
        if self._waiting is not None:
            self._waiting.result()
            self._waiting = None

    def end(self) -> dict[str, Any]:
        """What there is to say of the finished ledger."""
        there = self.mark()
        if self._ledger is None:
            return {}
        return {"batches": there.records, "bytes": self._ledger.file_bytes, "content": there.content}

    def close(self) -> None:
        """Lets go of the thread, once what it has begun is written."""
        self._pool.shutdown()
