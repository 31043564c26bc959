"""Where rows come from: a local file of JSON, JSON lines, CSV or Parquet, or a data set of the Hugging Face hub.

A row that cannot be told from its file stands among the others as the `RowFault` that says why; a file that cannot be
told into rows is an InputError. Nothing that a file of text says takes more memory than a fixed multiple of its own
bytes, which are at most `MOST_BYTES`. Parquet, which is packed, is unpacked by pieces first.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emsedit_jax import disk
from emsedit_jax.data import tables
from emsedit_jax.data.cues import Role
from emsedit_jax.data.easyedit import parallel
from emsedit_jax.data.fields import RowFault, hint, kind
from emsedit_jax.errors import InputError, near

MOST_BYTES = 2**30  # of a text: published data sets have tens of millions, and rows take several times as much memory
_MARKS = {  # what a text in another encoding begins with -> the encoding; the longer mark first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Rows(NamedTuple):
    """The rows of one source, in its order."""

    name: str  # of the file, or of the data set on the hub with its split; for messages
    rows: Sequence[Any]


def read(path: str | Path, forms: Sequence[str], role: Role) -> Rows:
    """The rows at `path`: a file, `hf:org/name`, `hf:org/name:split` or `hf:org/name/config:split`.

    Args:
      path: where the rows are.
      forms: the keys of `FORMS` that a text file may be in. Where there are several, the file's suffix says which.
      role: what the rows are for, which decides the split that a data set of the hub is taken from if none is named.

    Raises: InputError for what is missing, damaged, not of that form or empty.
    """
    if tables.is_hub(path):
        found = Rows(*tables.hub_rows(str(path), role))
    elif Path(path).suffix.lower() == ".parquet":
        found = Rows(Path(path).name, tables.parquet_rows(path, _bytes(Path(path), lambda: _magic(path))))
    else:
        parse = FORMS[_form(Path(path), forms)]
        found = Rows(Path(path).name, _parsed(path, parse))
    if not len(found.rows):
        raise InputError(f"{path}: the file holds no rows.")
    return found


def _form(path: Path, forms: Sequence[str]) -> str:
    suffix = path.suffix.lower().removeprefix(".")
    if len(forms) == 1 or suffix in forms:
        return forms[0] if len(forms) == 1 else suffix
    known = ", ".join(f".{form}" for form in (*forms, "parquet"))
    raise InputError(
        f"{path}: the file's suffix must say what it holds, one of {known}.{near(path.suffix, known.split(', '))}"
    )


def _parsed(path: str | Path, parse: Callable[[str], list[Any]]) -> list[Any]:
    try:
        return parse(_bytes(Path(path), lambda: disk.content(path, MOST_BYTES)).decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {_foreign(error)}.") from None
    except json.JSONDecodeError as error:
        fault = f"it is not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(f"{path}: {fault}. Correct the file, or fetch it again.") from None
    except RecursionError:
        raise InputError(f"{path}: it is nested too deep to be a list of rows. Correct the file.") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}. Correct the file, or fetch it again.") from None


def _foreign(error: UnicodeDecodeError) -> str:
    """Says of a text that is not UTF-8 what it is and how it becomes so."""
    name = next((name for mark, name in _MARKS.items() if error.object.startswith(mark)), None)
    byte = f"not UTF-8 text at byte {error.start} (0x{error.object[error.start]:02x})"
    fault = byte if name is None else f"the text is {name.upper()}, not UTF-8"
    return f"{fault}. Save the file as UTF-8, for instance: iconv -f {name or 'latin1'} -t utf-8 OLD > NEW"


def _magic(path: str | Path) -> bytes:
    with disk.regular(path) as file:
        return file.read(4)


def _bytes(path: Path, read: Callable[[], bytes]) -> bytes:
    """What is read of the file. Raises: InputError."""
    try:
        return read()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file{_beside(path)}; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: the file cannot be read ({why}). Check the path.") from None


def _beside(path: Path) -> str:
    """Names files of the same folder that are called nearly so."""
    try:
        return hint(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        return ""


# ---------------------------------------------------------------------------------------------- text to rows


def json_list(content: str) -> list[Any]:
    """One JSON list of rows. Raises: ValueError, RecursionError."""
    return _listed(_json(content))


def requests(content: str) -> list[Any]:
    """EasyEdit's requests: a JSON list of them, or its arguments in one object. Raises: ValueError, RecursionError."""
    found = _json(content)
    return parallel(found) if isinstance(found, dict) else _listed(found)


def _listed(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise ValueError(f"it holds {kind(found)}, not a list of rows")
    return found


def _json(content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        lines = "a row of JSON a line becomes one by: jq -s . OLD > NEW"
        raise ValueError(f"it must hold one JSON list of rows, but goes on at line {error.lineno} ({lines})") from None


def json_lines(content: str) -> list[Any]:
    """A row of JSON a line; blank lines do not count, and a broken one is a `RowFault`."""
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # splitlines would also cut at U+2028
    return [_json_line(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def _json_line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return RowFault(f"it is not JSON at line {number}, column {error.colno}: {error.msg}")
    except RecursionError:
        return RowFault(f"it is nested too deep to be a row, at line {number}")
    except ValueError as error:  # a whole number of thousands of digits
        return RowFault(f"it is not JSON at line {number}: {error}")


def table(content: str) -> list[Any]:
    """CSV with a row of column names -> an object of texts a row; rows of blank cells do not count.

    Cells are apart by commas, or by the semicolons or tabs that a first line without a comma has instead. A row with
    more or fewer cells than there are columns is a `RowFault`. Raises: ValueError.
    """
    first = content.lstrip().partition("\n")[0]
    mark = next((mark for mark in ";\t" if mark in first and "," not in first), ",")
    reader = csv.reader(io.StringIO(content, newline=""), strict=True, delimiter=mark)
    try:
        header, *lines = [cells for cells in reader if any(cell.strip() for cell in cells)] or [[]]
    except csv.Error as error:
        raise ValueError(f"it is not CSV at line {reader.line_num}: {error}") from None
    columns = [name.strip() for name in header]
    _check_columns(columns)
    return [_table_row(columns, cells) for cells in lines]


def _check_columns(columns: Sequence[str]) -> None:
    for place, name in enumerate(columns):
        if not name:
            raise ValueError(f"column {place + 1} has no name in the first line")
        if name in columns[:place]:
            raise ValueError(f"column '{name}' comes twice; number such columns, {name}_1 and {name}_2")


def _table_row(columns: Sequence[str], cells: Sequence[str]) -> Any:
    if len(cells) != len(columns):
        quoted = '; a text with commas stands in "quotes"' if len(cells) > len(columns) else ""
        return RowFault(f"it has {len(cells)} cells, the first line has {len(columns)}{quoted}")
    return dict(zip(columns, cells, strict=True))


FORMS: dict[str, Callable[[str], list[Any]]] = {
    "json": json_list,
    "jsonl": json_lines,
    "csv": table,
    "requests": requests,
}
