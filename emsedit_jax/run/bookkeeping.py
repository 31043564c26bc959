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
from emsedit_jax.run.prepare import say
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
    last = found.dropped()  # by any record: one behind them may have been written before a program died
    bad = 0 < last <= len(records) and files.load_snapshot(found, records[last - 1]) is None
    needed = records if bad else records[last:]
    gone = [path / record.file for record in needed if not _is_whole(path / record.file, record.bytes)]
    if gone and bad:
        return f"{path / files.snapshot_of(last)}, which the files of earlier batches went for, is damaged"
    return f"{gone[0]} is gone, or cut off" if gone else ""


def drop(path: Path) -> None:
    """Removes the files that the ledger of a finished stage says go. Raises InputError where the disk refuses."""
    if sharding.is_first():
        _drop(book.read(path), None)


def _drop(found: book.Ledger, at: int | None) -> None:
    if wrong := files.drop(found, at):
        say("warning", wrong)


def _is_whole(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


class Bookkeeper:
    """The ledger of a run in its making; the first process writes, all must call alike."""

    def __init__(self, path: Path, base: Identity, sites: Sites, snapshot_every: int, history: int = 0):
        """
        Args:
          snapshot_every: batches between two snapshots of all edits; 0: none.
          history: the last batches whose own files stay, at least; 0: those of all do.
        """
        self._path, self._base, self._sites = path, base, sites
        self._every, self._history = snapshot_every, history
        self._saved = 0  # batches that the run goes on behind, if it is broken off and its last checkpoint damaged
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
        self._ledger, self._saved = book.read(self._path), done
        book.check_base(self._ledger, self._base)
        book.cut(self._ledger, done)

    def saved(self, done: int) -> None:
        """A checkpoint of so many batches is sealed.

        What records up to the one before it say that goes is removed: those behind may yet be cut, and written again,
        and would not be there to tell what is missing.
        """
        if self._ledger is not None:
            _drop(self._ledger, self._saved)
            self._saved = done

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
        if whole is None:
            ledger.append(book.EDIT, rows, scores, name, digest)
            return
        snapshot = files.write_dense(self._path / files.snapshot_of(number), whole)
        last = max(number - self._history, 0) // self._every * self._every if self._history else 0
        ledger.append(book.EDIT, rows, scores, name, digest, snapshot, dropped=last)

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
        going = sum(path.stat().st_size for path in files.dropped(self._ledger))  # once the stage is over
        return {"batches": there.records, "bytes": self._ledger.file_bytes - going, "content": there.content}

    def close(self) -> None:
        """Lets go of the thread, once what it has begun is written."""
        self._pool.shutdown()
