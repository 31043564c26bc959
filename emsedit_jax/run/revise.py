"""What is done with a run's ledger afterwards: taking batches back, merging two runs, making one change of all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from emsedit_jax import disk
from emsedit_jax.errors import InputError, spans
from emsedit_jax.run import anchor, edits, history, ledger, lock, storing, workdir
from emsedit_jax.run.ledger import Ledger
from emsedit_jax.run.ledger_lines import mark
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
        _catch_up(folder, found)
        numbers = numbered(wanted, [record.number for record in found.active()])
        facts = [row for record in found.active() if record.number in numbers for row in record.rows]
        deltas, write = history.undo(found, numbers)
        with storing.replacing(folder.edits) as temporary:  # takes its place once the ledger says so
            there = mark([*found.records, history.undoing(found, numbers)])
            edits.save(temporary, found.sites, deltas, found.base, there)
            write()
    for row in facts:
        say("undone", f"{row['prompt']} -> {row['answer']}")
    left = sum(len(record.rows) for record in found.active())
    if left:
        say("edits", f"{folder.edits}: {left} facts in batches {_in_force(found)}; --mode=eval scores them")
    else:
        say("edits", f"{folder.edits}: no facts are in force any more")


def _catch_up(folder: Workdir, found: Ledger) -> None:
    """Writes the edits that a program did not come to write which died as it took batches back."""
    if words := anchor.behind(folder, found):
        say("warning", f"{words}; it is made anew")
        with contextlib.suppress(InputError):  # a damaged file, perhaps of a batch that is now to be taken back
            _replay(folder, found)


def _replay(folder: Workdir, found: Ledger) -> None:
    edits.save(folder.edits, found.sites, history.deltas(found), found.base, mark(found.records))


def run_replay(path: Path) -> None:
    """Makes a run's edits anew from its ledger, for instance where their file is damaged.

    Raises InputError where a file of the ledger is damaged, or the edits cannot be written.
    """
    folder = Workdir(path)
    ledger.check_present(folder.ledger)
    with lock.held(path):
        found = _whole(folder)
        _replay(folder, found)
    say("edits", f"{folder.edits}: batches {_in_force(found)}")


def run_merge(paths: Sequence[Path], to: Path) -> None:
    """The edits of two runs together, as a run's folder of its own; facts that they answer differently are told.

    Raises InputError where they are of different models or sites, one is not finished or in use, a file is damaged,
    or `to` is taken.
    """
    if paths[0].resolve() == paths[1].resolve():
        raise InputError(f"--workdir={paths[0]},{paths[1]} names one run twice; name two.")
    with _source(paths[0]) as one, _source(paths[1]) as other, _made(to, paths[0]) as folder:
        made, deltas = history.merged(one, other, folder.ledger)
        _finish(folder, made, deltas)
        told = history.conflicts(one, other)
        if told:
            with storing.replacing(folder.conflicts) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in told), encoding="utf-8")
    _say_made(to, made)
    for line in told[:SHOWN]:
        say("conflict", line)
    if told:
        rest = f"and {len(told) - SHOWN} more, all of them" if len(told) > SHOWN else "they are"
        say("conflict", f"{rest} in {Workdir(to).conflicts}")
        say("conflict", "the later one holds, if any: undo the batch of the other one with --mode=undo")


def run_compact(path: Path, to: Path) -> None:
    """A run's edits in force as one change, in a folder of their own; the history stays where it was.

    Raises InputError where the run is not finished or in use, a file is damaged, or `to` is taken.
    """
    with _source(path) as found, _made(to, path) as folder:
        made, deltas = history.compacted(found, folder.ledger)
        _finish(folder, made, deltas)
    _say_made(to, made)


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
    found = _read(folder)
    if found.damaged:
        raise InputError(f"{found.lost}; --mode=compact --to=FOLDER makes new edits of those before it.")
    return found


def _read(folder: Workdir) -> Ledger:
    if folder.stages.exists():
        raise InputError(
            f"{folder.path} holds a run that is not finished: finish it first, with the command it began with."
        )
    found = anchor.read(folder)
    if found.lost:
        say("warning", found.lost)
    return found


@contextlib.contextmanager
def _source(path: Path) -> Iterator[Ledger]:
    """The ledger of a finished run, which nobody changes meanwhile: it is locked, or cannot be written anyway."""
    folder = Workdir(path)
    ledger.check_present(folder.ledger)
    with lock.held(path) if os.access(path, os.W_OK) else contextlib.nullcontext():
        yield _read(folder)


@contextlib.contextmanager
def _made(to: Path, like: Path) -> Iterator[Workdir]:
    """A folder for new edits, with the config of the run that they are made like.

    Half of it is of no use: it appears whole or not at all.
    """
    config = workdir.saved_config(like)
    with disk.new_folder(to) as part:
        folder = workdir.open_workdir(part, config)
        storing.write_json(folder.made_of, {"like": str(like)})
        yield folder


def _finish(folder: Workdir, made: Ledger, deltas: Deltas) -> None:
    edits.save(folder.edits, made.sites, deltas, made.base, mark(made.records))


def _say_made(to: Path, made: Ledger) -> None:
    made.path = Workdir(to).ledger
    facts = sum(len(record.rows) for record in made.records)
    size = f"{made.file_bytes / 1e6:,.1f} MB"
    say("edits", f"{to}: {facts} facts in {len(made.records)} batches, {size}; --mode=eval scores them")


def _in_force(found: Ledger) -> str:
    return spans([record.number for record in found.active()]) or "none"
