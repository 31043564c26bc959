"""A GGUF file's lengths, checked against its size before anything believes them.

The library's reader takes counts as they are and loops as often as they say. Here every string, array and tensor must
end inside the file; then the reader ends, too.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import gguf

from emsedit_jax.errors import InputError

STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of scalar values, by their type
MOST_DIMENSIONS, MOST_DEPTH, MOST_VALUES = 8, 4, 2**24
LEAST_FIELD, LEAST_TENSOR = 13, 24  # bytes that any of them takes


class _Ends(Exception):
    """Something does not end inside the file; says what."""


def check(path: Path) -> None:
    """Raises InputError where a length goes past the end of the file. Reads no weights."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data).all()
    except _Ends as error:
        raise InputError(f"{path} cannot be read as a GGUF file: {error}; fetch it again.") from None
    except (OSError, ValueError) as error:  # (an empty file cannot be mapped)
        raise InputError(f"{path} cannot be read as a GGUF file: {error}.") from None


class _Walk:
    """Goes through a header once, from its beginning."""

    def __init__(self, data: mmap.mmap):
        self._data, self._at, self._size = data, 0, len(data)

    def all(self) -> None:
        """Every field and every tensor's description."""
        magic, _, tensors, fields = self._take("<4sIQQ", "its head")
        if magic != b"GGUF":
            raise _Ends("it does not begin as one")
        if fields * LEAST_FIELD > self._size or tensors * LEAST_TENSOR > self._size:
            raise _Ends(f"it says to have {fields} fields and {tensors} tensors, which do not fit in it")
        for number in range(fields):
            self._string(f"the name of field {number}")
            (kind,) = self._take("<I", f"field {number}")
            self._value(kind, f"field {number}", 0)
        for number in range(tensors):
            self._tensor(number)

    def _value(self, kind: int, what: str, depth: int) -> None:
        if kind == STRING:
            self._string(what)
        elif kind == ARRAY:
            kind, count = self._take("<IQ", what)
            if depth == MOST_DEPTH:
                raise _Ends(f"{what} is nested too deep")
            if count > MOST_VALUES:
                raise _Ends(f"{what} has {count} values")
            if kind in SIZES:
                self._skip(count * SIZES[kind], what)
                return
            if count * 8 > self._size:
                raise _Ends(f"{what} has {count} values, which do not fit in it")
            for _ in range(count):
                self._value(kind, what, depth + 1)
        elif kind in SIZES:
            self._skip(SIZES[kind], what)
        else:
            raise _Ends(f"{what} is of an unknown type {kind}")

    def _tensor(self, number: int) -> None:
        what = f"tensor {number}"
        self._string(what)
        (count,) = self._take("<I", what)
        if count > MOST_DIMENSIONS:
            raise _Ends(f"{what} has {count} dimensions")
        lengths = self._take(f"<{count}Q", what)
        kind, start = self._take("<IQ", what)
        if kind not in set(gguf.GGMLQuantizationType):
            raise _Ends(f"{what} is of an unknown type {kind}")
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        values = 1
        for length in lengths:
            values *= length
        if start > self._size or values // block * size > self._size - start:
            raise _Ends(f"{what} of {' x '.join(map(str, lengths))} values does not fit in it")

    def _string(self, what: str) -> None:
        (length,) = self._take("<Q", what)
        self._skip(length, what)

    def _skip(self, length: int, what: str) -> None:
        if length > self._size - self._at:
            raise _Ends(f"{what} goes past its end")
        self._at += length

    def _take(self, form: str, what: str) -> tuple:
        start = self._at
        self._skip(struct.calcsize(form), what)
        return struct.unpack_from(form, self._data, start)
