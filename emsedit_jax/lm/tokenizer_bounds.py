"""A tokenizer's files, checked before the library that reads them believes what they say of lengths.

Where such a length is wrong the library asks for all the memory that it names, or leaves an array's bounds, and then
ends the program. What else may be wrong it tells by itself.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsedit_jax.errors import InputError
from emsedit_jax.lm import json_files

CHARSMAP = "precompiled_charsmap"  # the field, also of classes that have it by a longer name
_BLOCK = 256  # units of a node's children in the trie, one for each byte


class _Wrong(Exception):
    """What is wrong with a map of characters."""


def check(folder: Path) -> None:
    """Raises InputError where a file is too long, no JSON, or holds a map of characters that goes past its own end."""
    json_files.check_sizes(folder)
    for path in sorted(folder.glob("*tokenizer*.json")):  # (another than tokenizer.json may be read in its place)
        try:
            json_files.read(path, _checked)
        except _Wrong as error:
            fault = f"its map of characters ({CHARSMAP}) {error}"
            raise InputError(f"{path}: the tokenizer cannot be loaded, {fault}; fetch the model again.") from None


def _checked(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file, each of whose fields is looked at, also those that come twice."""
    for name, value in pairs:
        if name.endswith(CHARSMAP) and isinstance(value, str):
            _check_charsmap(value)
    return dict(pairs)


def _check_charsmap(text: str) -> None:
    """SentencePiece's form: the bytes of a trie, counted in the first four, then the texts that it leads to.

    The trie is a double array of 4-byte units. From a unit a byte leads to the place that is its offset, XOR the byte;
    a unit's leaf holds where in the texts its own begins.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise _Wrong("is not base64") from None
    length = int.from_bytes(content[:4], "little")
    if len(content) < 4 or length % 4 or not 0 < length <= len(content) - 4:
        raise _Wrong(f"says {length:,} bytes of itself and has {max(len(content) - 4, 0):,}")
    units, texts = np.frombuffer(content, "<u4", length // 4, 4), content[4 + length :]
    inner = np.flatnonzero(units >> 31 == 0)  # the others are leaves
    ahead = inner ^ ((units[inner] >> 10) << ((units[inner] & 2**9) >> 6)).astype(np.int64)
    if (ahead | (_BLOCK - 1)).max(initial=0) >= len(units):
        raise _Wrong("leads out of itself")
    leaves = units[ahead[units[inner] & 2**8 != 0]] & (2**31 - 1)
    begins = np.append(np.frombuffer(texts, np.uint8) & 0xC0 != 0x80, True)  # not inside a character
    if leaves.max(initial=0) >= len(begins) or not begins[leaves].all():
        raise _Wrong("leads to no text")
