"""Files of facts -> `EditRecord`s: any data set of `READERS`, and bad rows named with file, row and field.

Rows count from 0, in messages as in `EditRecord.source`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsedit_jax.data.fields import RowFault, hint, kind
from emsedit_jax.data.readers import READERS, Cue, Draw, Reader, Role
from emsedit_jax.errors import InputError, near

__all__ = ["READERS", "Cue", "EditRecord", "Role", "counted", "load", "parse_rows"]

RowRange = tuple[int, int | None]  # start and stop, stop excluded; None: to the end of the file


@dataclass(frozen=True)
class EditRecord:
    """One fact to write: how it is asked, how else it may be asked, and what must not move."""

    edit: Cue
    equiv: tuple[Cue, ...]
    unrel: tuple[Cue, ...]
    subject: str
    source: str  # "zsre_eval.json row 12", for messages


def load(
    name: str,
    path: str | Path,
    *,
    role: Role,
    limit: int | None = None,
    rows: RowRange | None = None,
    seed: int = 0,
) -> list[EditRecord]:
    """Reads the facts of one file, in file order.

    Args:
      name: a key of `READERS`.
      path: the file.
      role: whether they are to train on or to evaluate with; some data sets read a row differently.
      limit: at most so many records.
      rows: (start, stop): only these rows of the file, stop excluded. Rows outside are not looked at.
      seed: of what is drawn inside a row (the paraphrase of fever). A draw depends on it and on the row's number
        alone, and is made once; the published program draws anew each time an item is read.

    Raises: InputError for an unknown name, a negative seed, and a file that is missing, malformed or has bad rows.
    """
    if name not in READERS:
        raise InputError(f"There is no data set '{name}'.{near(name, READERS)} Known: {', '.join(READERS)}.")
    if seed < 0:
        raise InputError(f"A seed is 0 or larger, not {seed}.")
    reader = READERS[name]
    found = _parse(reader, name, path)
    start, stop = _selection(len(found), path, limit, rows)

    records, faults = [], []
    for number in range(start, stop):
        source = f"{Path(path).name} row {number}"
        try:
            if not isinstance(found[number], dict):
                raise RowFault(f"the row is {kind(found[number])}, not an object")
            records.append(EditRecord(*reader.cues(found[number], role, _draw(seed, number)), source))
        except RowFault as fault:
            faults.append(f"row {number}: {fault}")
    if faults:
        raise InputError(f"{path}: {counted(faults)}. Correct the file, or the data set's name ({name}).")
    return records


def _draw(seed: int, number: int) -> Draw:
    """Draws for one row. The generator is made when it is asked for: most data sets draw nothing."""
    return lambda count: int(np.random.default_rng((seed, number)).integers(count))


def parse_rows(words: str) -> RowRange | None:
    """`"4096:8192"` -> (4096, 8192); an end may be left out: `"4096:"`, `":100"`; None for `""`, all rows.

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


def counted(faults: Sequence[str]) -> str:
    """`"5 bad rows (counting from 0): <first>; <second>; <third>; and 2 more"`."""
    more = [f"and {len(faults) - 3} more"] if len(faults) > 3 else []
    return f"{len(faults)} bad row{'s' * (len(faults) > 1)} (counting from 0): {'; '.join([*faults[:3], *more])}"


def _parse(reader: Reader, name: str, path: str | Path) -> list[Any]:
    if not str(path):
        raise InputError(f"No file is given for the data set {name}: set its path.")
    try:
        rows = reader.parse(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file{_beside(Path(path))}; check the path.") from None
    except OSError as error:
        raise InputError(f"{path}: the file cannot be read ({error.strerror or error}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}. Save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        fault = f"it is not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(f"{path}: {fault}. Correct the file, or fetch it again.") from None
    except RecursionError:
        raise InputError(f"{path}: it is nested too deep to be a list of rows. Correct the file.") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}. Correct the file, or fetch it again.") from None
    if not rows:
        raise InputError(f"{path}: the file holds no rows.")
    return rows


def _beside(path: Path) -> str:
    """Names files of the same folder that are called nearly so."""
    try:
        return hint(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        return ""


def _selection(size: int, path: str | Path, limit: int | None, rows: RowRange | None) -> tuple[int, int]:
    start, stop = rows or (0, None)
    stop = size if stop is None else stop
    if not 0 <= start < stop <= size:
        raise InputError(f"{path}: rows {start}:{stop} are asked for, the file has rows 0:{size} (end excluded).")
    if limit is not None and limit < 1:
        raise InputError(f"{path}: a limit of {limit} rows leaves nothing to read; set at least 1.")
    return start, stop if limit is None else min(stop, start + limit)
