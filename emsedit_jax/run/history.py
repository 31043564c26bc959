"""What a ledger's records add up to: the edits at any point, without some batches, of two ledgers, or made into one."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.edit.factors import Factors, added, closed
from emsedit_jax.edit.step import no_edit
from emsedit_jax.errors import InputError, spans
from emsedit_jax.run import ledger as book
from emsedit_jax.run import ledger_files as files
from emsedit_jax.run import resources
from emsedit_jax.run.ledger import Ledger, Record
from emsedit_jax.types import Deltas, Sites


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _add(sites: Sites, deltas: Deltas, step: tuple[Factors, ...]) -> Deltas:
    return added(sites, deltas, closed(sites, step))[0]


def add(sites: Sites, deltas: Deltas, steps: files.Steps) -> Deltas:
    """The edits with a batch in them, step by step as it was written; those given are gone."""
    for step in steps:
        deltas = _add(sites, deltas, tuple(Factors(*sharding.put(part)) for part in step))
    return deltas


def deltas(found: Ledger, at: int | None = None) -> Deltas:
    """The edits in force after so many records, all by default; to the last bit those of the run at that point.

    Begins with the last snapshot of the same batches. Raises InputError where a file that is needed is damaged, or was
    dropped.
    """
    records, last = found.active(at), found.dropped()
    start, now = _snapshot(found, records, len(found.records) if at is None else at)
    for record in records[start:]:
        if record.number <= last and not (found.path / record.file).exists():
            raise InputError(_missing(found, last if at is None else at))
        steps = files.load(found, record)  # which fits the sites: those of a forged header are not made room for
        now = add(found.sites, nothing(found) if now is None else now, steps)
    return nothing(found) if now is None else now


def _missing(found: Ledger, at: int) -> str:
    """What to say where the edits after so many records need files that were dropped."""
    last = found.dropped()
    if at < last:
        return f"{found.path} goes back to batch {last} at most: files of batches before were dropped (ledger.history)."
    lost = f"{found.path / files.snapshot_of(last)}, which batches 1-{last} were dropped for, is damaged"
    return f"{lost}: none can be taken back; the folder's edits.safetensors, where it is whole, has what is in force."


def nothing(found: Ledger) -> Deltas:
    """No edits. Raises InputError where this machine has no room for edits of these sites."""
    needed = 4 * sum(len(group.layers) * group.k * group.v for group in found.sites)
    if needed > resources.host_bytes():
        room = f"{resources.host_bytes() / 1e9:,.1f} GB"
        raise InputError(f"{found.path} holds edits of {needed / 1e9:,.1f} GB, and this machine has {room} of memory.")
    return no_edit(found.sites)


def _snapshot(found: Ledger, records: Sequence[Record], at: int) -> tuple[int, Deltas | None]:
    """(how many of the batches are in it, the edits) of the last snapshot that is a beginning of these batches."""
    numbers = [record.number for record in records]
    for one in reversed(found.records[:at]):
        there = [record.number for record in found.active(one.number)] if one.snapshot else None
        if there is None or there != numbers[: len(there)]:
            continue
        step = files.load_snapshot(found, one)  # where it is damaged, an earlier one will do, or none
        if step is not None:
            specs = tuple(map(sharding.spec_of_edit, found.sites))
            whole = tuple(np.array(y) for _, y in step)  # of their own: the next step may be added in place
            return len(there), sharding.put(whole, specs)
    return 0, None


# ---------------------------------------------------------------------------------------------- undoing, merging


def undo(found: Ledger, numbers: Collection[int]) -> tuple[Deltas, Callable[[], None]]:
    """(the edits without those batches, what writes it down): nothing is written where a file is damaged.

    Raises InputError for numbers that are no batches in force, and for those whose files were dropped.
    """
    known = {record.number for record in found.active()}
    odd = sorted(set(numbers) - known)
    if odd or not numbers:
        words = f"there is no batch {odd[0]} in force" if odd else "no batch is named"
        raise InputError(f"{found.path}: {words}; those in force are {spans(sorted(known)) or 'none'}.")
    if min(numbers) <= found.dropped():
        words = f"batch {min(numbers)} can no more be taken back, its file was dropped (ledger.history)"
        raise InputError(f"{found.path}: {words}; batches from {found.dropped() + 1} on can.")
    planned = dataclasses.replace(found, records=[*found.records, undoing(found, numbers)])
    return deltas(planned), lambda: _write(found, numbers)


def _write(found: Ledger, numbers: Collection[int]) -> None:
    found.append(book.UNDO, undone=sorted(numbers))


def undoing(found: Ledger, numbers: Collection[int]) -> Record:
    """The record that takes those batches back, before it has a time and a hash."""
    return Record(len(found.records) + 1, book.UNDO, (), "", {}, "", 0, "", "", tuple(sorted(numbers)), "")


def conflicts(one: Ledger, other: Ledger) -> list[str]:
    """Facts of the same subject that two ledgers answer differently, in words; without subjects, of the same prompt."""
    known = collections.defaultdict(list)
    for record in one.active():
        for row in record.rows:
            known[_about(row)].append(row)
    found = []
    for record in other.active():
        for row in record.rows:
            there = [each for each in known[_about(row)] if each["answer"] != row["answer"]]
            same = [each for each in there if each["prompt"] == row["prompt"]] or there
            if same:
                sides = ((same[0], one), (row, other))
                words = (f"{each['prompt']!r} -> {each['answer']!r} in {side.path}" for each, side in sides)
                found.append(f"{_about(row)}: {', '.join(words)}")
    return found


def _about(row: Mapping[str, Any]) -> str:
    return str(row["subject"] or row["prompt"])


def merged(one: Ledger, other: Ledger, to: Path) -> tuple[Ledger, Deltas]:
    """A new ledger with the batches in force of both, the first one's first, and the edits that they make together.

    Batches whose files were dropped are one change.

    Raises InputError where the two are of different models or sites, or a file is damaged.
    """
    book.check_base(other, one.base)
    if one.sites != other.sites:
        both = f"{one.path} and {other.path}"
        raise InputError(f"{both} hold edits of different layers: only those of the same can be merged.")
    made, now = book.create(to, one.base, one.sites), nothing(one)
    for source in (one, other):
        for part in _parts(source):
            name = files.name_of(len(made.records) + 1)
            digest = files.write(to / name, part.steps)
            made.append(part.kind, part.rows, part.scores, name, digest)
            now = add(made.sites, now, part.steps)
    return made, now


class _Part(NamedTuple):
    """A batch, or those that were dropped."""

    kind: str
    rows: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Any]
    steps: files.Steps


def _parts(found: Ledger) -> Iterator[_Part]:
    """The batches in force. Raises InputError where a file is damaged."""
    last = found.dropped()
    old = [record for record in found.active() if record.number <= last]
    if old:
        whole = files.load_snapshot(found, found.records[last - 1])
        if whole is None:
            raise InputError(_missing(found, last))
        yield _Part(book.DENSE, [row for record in old for row in record.rows], {}, [whole])
    for record in found.active():
        if record.number > last:
            yield _Part(record.kind, record.rows, record.scores, files.load(found, record))


def compacted(found: Ledger, to: Path) -> tuple[Ledger, Deltas]:
    """A new ledger with one record, and what it holds: all edits in force, with the facts of all batches."""
    made, now = book.create(to, found.base, found.sites), deltas(found)
    rows = [row for record in found.active() for row in record.rows]
    name = files.name_of(1)
    made.append(book.DENSE, rows, {}, name, files.write_dense(to / name, tuple(map(sharding.host, now))))
    return made, now
