"""What is done with a run's ledger afterwards: taking batches back, merging two runs, making one change of all."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from emsedit_jax.errors import InputError, spans
from emsedit_jax.run import edits, history, ledger, lock, storing, workdir
from emsedit_jax.run.ledger import Ledger
from emsedit_jax.run.prepare import say
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas

SHOWN = 10  # contradictions that are printed


def run_undo(path: Path, wanted: str) -> None:
    """Takes batches of a run back: a record in its ledger, and its edits without them.

    Raises InputError for batches that are not in force, and where a file is damaged or cannot be written.
    """
    folder = Workdir(path)
    ledger.check_present(folder.ledger)  # before a lock is put there
    with lock.held(path):
        found = _whole(folder)
        numbers = numbered(wanted, [record.number for record in found.active()])
        facts = [row for record in found.active() if record.number in numbers for row in record.rows]
        deltas, write = history.undo(found, numbers)
        with storing.replacing(folder.edits) as temporary:  # takes its place once the ledger says so
            edits.save(temporary, found.sites, deltas, found.base)
            write()
    for row in facts:
        say("undone", f"{row['prompt']} -> {row['answer']}")
    left = sum(len(record.rows) for record in found.active())
    if left:
        say("edits", f"{folder.edits}: {left} facts in batches {_in_force(found)}; --mode=eval scores them")
    else:
        say("edits", f"{folder.edits}: no facts are in force any more")


def run_replay(path: Path) -> None:
    """Makes a run's edits anew from its ledger, for instance where their file is damaged.

    Raises InputError where a file of the ledger is damaged, or the edits cannot be written.
    """
    folder = Workdir(path)
    ledger.check_present(folder.ledger)
    with lock.held(path):
        found = _whole(folder)
        edits.save(folder.edits, found.sites, history.deltas(found), found.base)
    say("edits", f"{folder.edits}: batches {_in_force(found)}")


def run_merge(paths: Sequence[Path], to: Path) -> None:
    """The edits of two runs together, as a run's folder of its own; facts that they answer differently are told.

    Raises InputError where they are of different models or sites, a file is damaged, or `to` is taken.
    """
    one, other = (_read(Workdir(path)) for path in paths)
    with _made(to, paths[0]) as folder:
        made, deltas = history.merged(one, other, folder.ledger)
        _finish(folder, made, deltas)
    told = history.conflicts(one, other)
    for line in told[:SHOWN]:
        say("conflict", line)
    if len(told) > SHOWN:
        say("conflict", f"and {len(told) - SHOWN} more")
    if told:
        say("conflict", "the later one holds, if any: undo the batch of the other one with --mode=undo")


def run_compact(path: Path, to: Path) -> None:
    """A run's edits in force as one change, in a folder of their own; the history stays where it was.

    Raises InputError where a file is damaged, or `to` is taken.
    """
    found = _read(Workdir(path))
    with _made(to, path) as folder:
        made, deltas = history.compacted(found, folder.ledger)
        _finish(folder, made, deltas)


def numbered(wanted: str, known: Sequence[int]) -> list[int]:
    """Numbers of batches by words.

    >>> numbered("3,5-6,9-", known=range(1, 12))
    [3, 5, 6, 9, 10, 11]

    Raises InputError for other words, and for none of the known.
    """
    found: list[int] = []
    for part in filter(None, (part.strip() for part in wanted.split(","))):
        match = re.fullmatch(r"(\d{1,9})(-(\d{0,9}))?", part)
        if match is None:
            raise InputError(f"--batches={wanted}: {part!r} is no number of a batch; write for instance 3,5-7 or 9-.")
        first = int(match.group(1))
        last = first if match.group(2) is None else int(match.group(3) or max(known, default=0))
        named = [number for number in known if first <= number <= last]
        if not named:
            there = f"; those are {spans(known)}" if known else ": none is"
            raise InputError(f"--batches={wanted}: {part} names no batch in force{there}.")
        found += named
    if not found:
        raise InputError(f"--batches names no batch; those in force are {spans(known) or 'none'}.")
    return sorted(set(found))


def _whole(folder: Workdir) -> Ledger:
    """The ledger of a finished run, to be changed: no record of it may be damaged."""
    if folder.stages.exists():
        raise InputError(
            f"{folder.path} holds a run that is not finished: finish it first, with the command it began with."
        )
    found = _read(folder)
    if found.damaged:
        raise InputError(f"{found.lost}; --mode=compact --to=FOLDER makes new edits of those before it.")
    return found


def _read(folder: Workdir) -> Ledger:
    found = ledger.read(folder.ledger)
    if found.lost:
        say("warning", found.lost)
    return found


@contextlib.contextmanager
def _made(to: Path, like: Path) -> Iterator[Workdir]:
    """A folder for new edits, kept for this program, with the config of the run that they are made like."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to={to} is there already: name a folder that is empty, or not there yet.")
    config = workdir.saved_config(like)
    try:
        with lock.held(to):
            folder = workdir.open_workdir(to, config)
            storing.write_json(folder.made_of, {"like": str(like)})
            yield folder
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)  # half of it is of no use
        raise


def _finish(folder: Workdir, made: Ledger, deltas: Deltas) -> None:
    edits.save(folder.edits, made.sites, deltas, made.base)
    facts = sum(len(record.rows) for record in made.records)
    size = f"{made.file_bytes / 1e6:,.1f} MB"
    say("edits", f"{folder.path}: {facts} facts in {len(made.records)} batches, {size}; --mode=eval scores them")


def _in_force(found: Ledger) -> str:
    return spans([record.number for record in found.active()]) or "none"
