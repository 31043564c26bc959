"""What a row of JSON holds, field by field: taken with a check, and what is wrong said without file and row number.

`where` is the path to a part of a row, such as `"unrelated[0]."`; with the field's name it is what a message names.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from emsedit_jax.errors import near


class RowFault(ValueError):
    """What is wrong with one row, said without file and row number."""


_DATES = (datetime.date, datetime.time, datetime.timedelta)  # datetime is a date
_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null", bytes: "bytes"}


def kind(value: Any) -> str:
    """The value's type in the words of JSON."""
    return "a date" if isinstance(value, _DATES) else _NAMES.get(type(value), "a number")


def hint(name: str, known: Iterable[str]) -> str:
    """The nearest known names, in brackets inside a sentence."""
    close = near(name, known).strip()
    return f" ({close})" if close else ""


def field(row: Any, name: str, where: str = "") -> Any:
    """The field's value, whatever it is. Raises: RowFault if `row` is no object or has no such field."""
    if not isinstance(row, dict):
        raise RowFault(f"{where.rstrip('.') or 'the row'} is {kind(row)}, not an object")
    if name not in row:
        raise RowFault(f"field '{where}{name}' is missing{hint(name, row)}")
    return row[name]


def string(value: Any, path: str) -> str:
    """The value as text, which may be blank. Raises: RowFault if it is no text, or none that a tokenizer takes."""
    if isinstance(value, _DATES):  # JSON has none: the `datasets` library makes them of texts that look like dates
        raise RowFault(f"field '{path}' is a date, not text; give the rows as a file, or as text in a Parquet file")
    if not isinstance(value, str):
        raise RowFault(f"field '{path}' is {kind(value)}, not text")
    if "\0" in value:
        raise RowFault(f"field '{path}' holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, written as \\ud83d: no tokenizer takes it
        raise RowFault(f"field '{path}' holds half a Unicode character") from None
    return value


def full(value: Any, path: str) -> str:
    """The value as text, which must not be blank. Raises: RowFault."""
    if not string(value, path).strip():
        raise RowFault(f"field '{path}' is empty")
    return value


def text(row: Any, name: str, where: str = "") -> str:
    """The field's text, which must not be blank. Raises: RowFault."""
    return full(field(row, name, where), where + name)


def entries(row: Any, name: str, where: str = "") -> list[Any]:
    """The entries of a field that holds a list, which may be empty. Raises: RowFault if it is no list."""
    value = field(row, name, where)
    if not isinstance(value, list):
        raise RowFault(f"field '{where}{name}' is {kind(value)}, not a list")
    return value


def first(row: Any, name: str) -> Any:
    """The first entry of a field that holds a list. Raises: RowFault if it is no list, or an empty one."""
    found = entries(row, name)
    if not found:
        raise RowFault(f"field '{name}' is an empty list")
    return found[0]


def texts(row: Any, name: str) -> list[str]:
    """All entries of a list of texts, of which there must be one, and none blank. Raises: RowFault."""
    first(row, name)
    return [full(entry, f"{name}[{m}]") for m, entry in enumerate(entries(row, name))]
