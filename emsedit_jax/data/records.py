"""Files of facts -> `EditRecord`s: any data set of `READERS`, and bad rows named with file, row and field.

Rows count from 0, in messages as in `EditRecord.source`; so do the facts of a row that has several.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emsedit_jax.data import files
from emsedit_jax.data.cues import Cue, Cues, Draw, EditRecord, Role
from emsedit_jax.data.faults import SKIP, Fault, report
from emsedit_jax.data.fields import RowFault, kind
from emsedit_jax.data.readers import READERS, Reader
from emsedit_jax.errors import InputError, near

__all__ = ["READERS", "Cue", "EditRecord", "Loaded", "Role", "load", "of_objects", "parse_rows", "read", "refusal"]

RowRange = tuple[int, int | None]  # start and stop, stop excluded; None: to the end of the file


class Loaded(NamedTuple):
    """The facts of the good rows of a file, and what is wrong with the others."""

    name: str  # of the file, for messages
    records: list[EditRecord]
    faults: list[Fault]


def load(
    name: str,
    path: str | Path,
    *,
    role: Role,
    limit: int | None = None,
    rows: RowRange | None = None,
    seed: int = 0,
    can_skip: bool = True,
) -> list[EditRecord]:
    """Reads the facts of one file, in file order, as `read` does.

    Raises: InputError as `read` does, and where there is any bad row: one report names them all.
    """
    found = read(name, path, role=role, limit=limit, rows=rows, seed=seed, can_skip=can_skip)
    if found.faults:
        raise refusal(name, path, found, can_skip)
    return found.records


def read(
    name: str,
    path: str | Path,
    *,
    role: Role,
    limit: int | None = None,
    rows: RowRange | None = None,
    seed: int = 0,
    can_skip: bool = True,
) -> Loaded:
    """Reads the facts of one file, in file order; bad rows are left out and told.

    Args:
      name: a key of `READERS`.
      path: the file, or a data set of the Hugging Face hub (see `files.read`).
      role: whether they are to train on or to evaluate with; some data sets read a row differently.
      limit: at most so many rows.
      rows: (start, stop): only these rows of the file, stop excluded. Rows outside are not looked at.
      seed: of what is drawn inside a row (the paraphrase of fever). A draw depends on it and on the row's number
        alone, and is made once; the published program draws anew each time an item is read.
      can_skip: bad rows can be left out by a flag, which a refusal then names.

    Raises: InputError for an unknown name, a negative seed, a file that is missing or malformed, and where no row of
      it is good.
    """
    if name not in READERS:
        raise InputError(f"There is no data set '{name}'.{near(name, READERS)} Known: {', '.join(READERS)}.")
    if seed < 0:
        raise InputError(f"A seed is 0 or larger, not {seed}.")
    if not str(path):
        raise InputError(f"No file is given for the data set {name}: set its path.")
    reader = READERS[name]
    found = files.read(path, reader.forms, role)
    start, stop = _selection(len(found.rows), path, limit, rows)

    loaded = _parsed(reader, found.rows, range(start, stop), found.name, role, seed)
    if not loaded.records:
        raise refusal(name, path, loaded, can_skip)
    return loaded


def of_objects(name: str, rows: Sequence[Any], *, role: Role, seed: int = 0, called: str = "facts") -> list[EditRecord]:
    """The facts of rows that are no file's, in the form of the data set `name`; in messages they are `called` so.

    >>> of_objects("facts", [{"prompt": "The capital of France is", "answer": "Lyon"}], role="eval")[0].edit
    Cue(prompt='The capital of France is', answer='Lyon', versus=None)

    Raises: InputError where any of them is bad: one report names them all.
    """
    found = _parsed(READERS[name], rows, range(len(rows)), called, role, seed)
    if found.faults:
        raise InputError(f"{called}: {report(found.faults)}.")
    return found.records


def _parsed(reader: Reader, rows: Sequence[Any], numbers: range, called: str, role: Role, seed: int) -> Loaded:
    """The facts of the rows with these numbers, and what is wrong with the others."""
    records, faults = [], []
    for number in numbers:
        try:
            facts = reader.cues(_object(rows[number]), role, _draw(seed, number))
            records += _records(facts, f"{called} row {number}")
        except RowFault as fault:
            faults.append(Fault(f"row {number}", str(fault)))
    return Loaded(called, records, faults)


def refusal(name: str, path: str | Path, found: Loaded, can_skip: bool = True) -> InputError:
    """What to say of a file with bad rows."""
    if not can_skip:
        return InputError(f"{path}: {report(found.faults)}. Correct these rows, or take them out of the file.")
    skip = f", or leave such rows out with {SKIP}" if found.records else ""
    return InputError(f"{path}: {report(found.faults)}. Correct the file, or the data set's name ({name}){skip}.")


def _object(row: Any) -> dict:
    """The row, which must be an object. Raises: RowFault."""
    if isinstance(row, RowFault):
        raise row
    if not isinstance(row, dict):
        raise RowFault(f"the row is {kind(row)}, not an object")
    return row


def _records(facts: Sequence[Cues], row: str) -> list[EditRecord]:
    """The facts of one row, each with where it comes from."""
    sources = [row] if len(facts) == 1 else [f"{row} fact {m}" for m in range(len(facts))]
    return [
        EditRecord(one.edit, one.equiv, one.unrel, one.subject, source, one.asked, one.borrowed, len(facts))
        for one, source in zip(facts, sources, strict=True)
    ]


def _draw(seed: int, number: int) -> Draw:
    """Draws for one row. The generator is made when it is asked for: most data sets draw nothing."""
    return lambda count: int(np.random.default_rng((seed, number)).integers(count))


def parse_rows(words: str) -> RowRange | None:
    """A range of rows by its words; an end may be left out. None: all rows.

    >>> parse_rows("4096:8192"), parse_rows("4096:"), parse_rows(":100"), parse_rows("")
    ((4096, 8192), (4096, None), (0, 100), None)

    Raises: InputError for anything else, also for a stop that is not after the start.
    """
    if not words.strip():
        return None
    found = re.fullmatch(r"\s*([0-9]{0,15})\s*:\s*([0-9]{0,15})\s*", words)
    if not found:
        raise InputError(f"rows are given as START:STOP, such as 4096:8192, 4096: or :100, not {words!r}.")
    start, stop = int(found[1] or 0), int(found[2]) if found[2] else None
    if stop is not None and stop <= start:
        raise InputError(f"rows {words!r} are none: the stop, which is not read itself, must be after the start.")
    return start, stop


def _selection(size: int, path: str | Path, limit: int | None, rows: RowRange | None) -> tuple[int, int]:
    start, stop = rows or (0, None)
    stop = size if stop is None else stop
    if not 0 <= start < stop <= size:
        raise InputError(f"{path}: rows {start}:{stop} are asked for, the file has rows 0:{size} (end excluded).")
    if limit is not None and limit < 1:
        raise InputError(f"{path}: a limit of {limit} rows leaves nothing to read; set at least 1.")
    return start, stop if limit is None else min(stop, start + limit)
