"""Bad rows in words: each is named, and rows with the same fault are told together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from emsedit_jax.errors import spans

SKIP = "--config.dataset.on_bad_row=skip"
_SOURCE = re.compile(r"(?P<file>(?:.*\s)?)row (?P<row>\d+)(?P<part>.*)", re.DOTALL)


class Fault(NamedTuple):
    """What is wrong, and where."""

    source: str  # "row 12", "zsre_eval.json row 12 (edit)"
    why: str

    @property
    def words(self) -> str:
        return f"{self.source}: {self.why}"


def report(faults: Sequence[Fault]) -> str:
    """`"5 bad rows (counting from 0): rows 1, 4-6: field 'ans' is missing; row 2: the row is a number"`.

    All of them are told. Rows are counted once, whatever is wrong with them.
    """
    alike: dict[tuple[str, str, str], list[int]] = {}
    for fault in dict.fromkeys(faults):
        found = _SOURCE.fullmatch(fault.source)
        file, part = (found["file"], found["part"]) if found else (fault.source, "")
        alike.setdefault((file, part, fault.why), []).extend([int(found["row"])] if found else [])
    told = [f"{file}{_rows(numbers)}{part}: {why}" for (file, part, why), numbers in alike.items()]
    count = len({row_of(fault.source) for fault in faults})
    return f"{count} bad row{'s' * (count > 1)} (counting from 0): {'; '.join(told)}"


def row_of(source: str) -> str:
    """The source without what it says behind the row: `"a.json row 12"` of `"a.json row 12 fact 1 (edit)"`."""
    found = _SOURCE.fullmatch(source)
    return f"{found['file']}row {found['row']}" if found else source


def listed(sources: Sequence[str]) -> str:
    """`"rows 3 and 9"` of a file's rows; with what is said behind a row, `"row 3 fact 1 and row 9"`."""
    found = [_SOURCE.fullmatch(source) for source in dict.fromkeys(sources)]
    places = [(int(one["row"]), one["part"]) for one in found if one]
    if len(places) < len(found):
        return _and(dict.fromkeys(sources))
    if any(part for _, part in places):
        return _and(f"row {row}{part}" for row, part in places)
    return f"row{'s' * (len(places) > 1)} {_and(str(row) for row, _ in places)}"


def by_row(faults: Sequence[Fault], file: str = "") -> tuple[str, ...]:
    """One text for each bad row, with all that is wrong with it; `file` is put before."""
    found: dict[str, list[str]] = {}
    for fault in dict.fromkeys(faults):
        found.setdefault(row_of(fault.source), []).append(fault.words)
    return tuple(file + "; ".join(words) for words in found.values())


def _rows(numbers: Sequence[int]) -> str:
    rows = sorted(set(numbers))
    return f"row{'s' * (len(rows) > 1)} {spans(rows)}" if rows else ""


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
