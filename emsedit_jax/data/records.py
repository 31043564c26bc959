"""Files of facts -> `EditRecord`s: one row of `READERS` per data set, and bad rows named with file, row and field.

Rows count from 0, in messages as in `EditRecord.source`. Whether a file is read as training or as evaluation rows is
decided by the caller's `role`, never by the file's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from emsedit_jax.errors import InputError, near

Role = Literal["train", "eval"]


@dataclass(frozen=True)
class Cue:
    """A prompt and the answer that should follow it (without the space between them)."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class EditRecord:
    """One fact to write: how it is asked, how else it may be asked, and what must not move."""

    edit: Cue
    equiv: tuple[Cue, ...]
    unrel: tuple[Cue, ...]
    subject: str
    source: str  # "zsre_eval.json row 12", for messages


class Cues(NamedTuple):
    """What a reader takes from one row; `load` adds the source."""

    edit: Cue
    equiv: tuple[Cue, ...]
    unrel: tuple[Cue, ...]
    subject: str


class Reader(NamedTuple):
    """How a data set is stored, and the function from a row of it to its cues."""

    parse: Callable[[str], list[Any]]  # file text -> rows; ValueError if it is not of that format
    cues: Callable[[dict, Role], Cues]  # raises RowFault


class RowFault(ValueError):
    """What is wrong with one row, said without file and row number."""


# ---------------------------------------------------------------------------------------------- fields of a row


def _kind(value: Any) -> str:
    """The value's type in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _hint(name: str, known: Iterable[str]) -> str:
    """The nearest known names, in brackets inside a sentence."""
    close = near(name, known).strip()
    return f" ({close})" if close else ""


def _field(row: Any, field: str, where: str = "") -> Any:
    if not isinstance(row, dict):
        raise RowFault(f"{where.rstrip('.') or 'the row'} is {_kind(row)}, not an object")
    if field not in row:
        raise RowFault(f"field '{where}{field}' is missing{_hint(field, row)}")
    return row[field]


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RowFault(f"field '{path}' is {_kind(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, written as \\ud83d: no tokenizer takes it
        raise RowFault(f"field '{path}' holds half a Unicode character") from None
    return value


def _full(value: Any, path: str) -> str:
    if not _string(value, path).strip():
        raise RowFault(f"field '{path}' is empty")
    return value


def text(row: Any, field: str, where: str = "") -> str:
    """The field's text, which must not be blank. `where` is the path to `row` inside its row, such as "unrelated[0].".

    Raises: RowFault.
    """
    return _full(_field(row, field, where), where + field)


def first(row: Any, field: str) -> Any:
    """The first entry of a field that holds a list. Raises: RowFault if it is no list, or an empty one."""
    value = _field(row, field)
    if not isinstance(value, list):
        raise RowFault(f"field '{field}' is {_kind(value)}, not a list")
    if not value:
        raise RowFault(f"field '{field}' is an empty list")
    return value[0]


# ---------------------------------------------------------------------------------------------- the data sets


def zsre(row: dict, role: Role) -> Cues:
    """zsRE as in MEND: the unrelated question is stored without its question mark, the others with it."""
    answer = text(row, "ans")
    return Cues(
        edit=Cue(text(row, "src"), answer),
        equiv=(Cue(text(row, "rephrase"), answer),),
        unrel=(Cue(text(row, "loc") + "?", text(row, "loc_ans")),),
        subject=_string(_field(row, "subject"), "subject"),
    )


def worldfacts(row: dict, role: Role) -> Cues:
    """The embedded facts: `answer_new` is what to write; the first paraphrase and unrelated prompt are taken."""
    answer = text(row, "answer_new")
    paraphrase = _full(first(row, "paraphrases"), "paraphrases[0]")
    unrelated = first(row, "unrelated")
    return Cues(
        edit=Cue(text(row, "prompt"), answer),
        equiv=(Cue(paraphrase, answer),),
        unrel=(Cue(text(unrelated, "prompt", "unrelated[0]."), text(unrelated, "answer", "unrelated[0].")),),
        subject=_string(_field(row, "subject"), "subject"),
    )


def _json_list(content: str) -> list[Any]:
    rows = json.loads(content)
    if not isinstance(rows, list):
        raise ValueError(f"it holds {_kind(rows)}, not a list of rows")
    return rows


def _json_lines(content: str) -> list[Any]:
    rows = []
    for number, line in enumerate(content.split("\n"), 1):  # splitlines would also cut at U+2028 inside a text
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"it is not JSON at line {number}, column {error.colno}: {error.msg}") from None
    return rows


READERS: dict[str, Reader] = {
    "zsre": Reader(_json_list, zsre),
    "worldfacts": Reader(_json_lines, worldfacts),
}


# ---------------------------------------------------------------------------------------------- files


def load(
    name: str, path: str | Path, *, role: Role, limit: int | None = None, rows: tuple[int, int] | None = None
) -> list[EditRecord]:
    """Reads the facts of one file, in file order.

    Args:
      name: a key of `READERS`.
      path: the file.
      role: whether they are to train on or to evaluate with; some data sets read a row differently.
      limit: at most so many records.
      rows: (start, stop): only these rows of the file, stop excluded. Rows outside are not looked at.

    Raises: InputError for an unknown name, and for a file that is missing, malformed or has bad rows.
    """
    if name not in READERS:
        raise InputError(f"There is no data set '{name}'.{near(name, READERS)} Known: {', '.join(READERS)}.")
    reader = READERS[name]
    found = _parse(reader, name, path)
    start, stop = _selection(len(found), path, limit, rows)

    records, faults = [], []
    for number in range(start, stop):
        source = f"{Path(path).name} row {number}"
        try:
            if not isinstance(found[number], dict):
                raise RowFault(f"the row is {_kind(found[number])}, not an object")
            records.append(EditRecord(*reader.cues(found[number], role), source))
        except RowFault as fault:
            faults.append(f"row {number}: {fault}")
    if faults:
        raise InputError(f"{path}: {counted(faults)}. Correct the file, or the data set's name ({name}).")
    return records


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
        return _hint(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        return ""


def _selection(size: int, path: str | Path, limit: int | None, rows: tuple[int, int] | None) -> tuple[int, int]:
    start, stop = (0, size) if rows is None else rows
    if not 0 <= start < stop <= size:
        raise InputError(f"{path}: rows {start}:{stop} are asked for, the file has rows 0:{size} (end excluded).")
    if limit is not None and limit < 1:
        raise InputError(f"{path}: a limit of {limit} rows leaves nothing to read; set at least 1.")
    return start, stop if limit is None else min(stop, start + limit)
