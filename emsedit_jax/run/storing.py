"""Files that are written whole or not at all, and believed only where they are what was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emsedit_jax import disk
from emsedit_jax.errors import InputError

MOST_BYTES = 2**31  # of a JSON file that is read: facts with all their prompts take more than what they came from
SEAL = "sha256"  # the last field of a sealed JSON file


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says against writing `path` into one clear line.

    Raises:
        InputError: no permission, no space, a file where a folder should be, ...
    """
    with disk.told("write", path, "free it, or name another folder with --workdir"):
        yield


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """The same for what is read there. Raises InputError."""
    with disk.told("read", path, "mend that, or name another folder with --workdir"):
        yield


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a new file's name in the folder of `path`; it takes the place of `path` once the block ends well.

    A block that fails leaves `path` as it was, and no other file.

    Raises:
        InputError: the folder cannot be written.
    """
    if not writes():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
        return
    with writing(path):
        temporary = disk.beside(path)
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            disk.sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, obj: Mapping[str, Any]) -> None:
    """Writes `obj` whole or not at all, with the digest of its content behind it.

    Arrays become lists, not-a-number becomes null.
    """
    content = plain(obj)
    text = json.dumps(content | {SEAL: _digest(content)}, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        InputError: the file is missing, is none of these, or its content changed since it was written.
    """
    try:
        found = json.loads(disk.content(path, MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = str(getattr(error, "strerror", None) or error).lower()
        raise InputError(f"cannot read {path}: {why}; {remedy}.") from None
    if isinstance(found, dict) and SEAL not in found and "model_type" in found:
        about = f"{path.parent} is a Hugging Face model, not the folder of a run or of edits by hand"
        raise InputError(f"{about}; name one of those with --workdir.")
    if isinstance(found, dict) and SEAL not in found:
        about = f"{path} has no checksum (its field {SEAL}): it was changed by hand, or is of an earlier version"
        raise InputError(f"{about}; {remedy}.")
    if not isinstance(found, dict) or found.pop(SEAL) != _digest(found):
        raise InputError(f"{path} is damaged: its content is not what was written; {remedy}.")
    return found


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one line to `path` and hands it to the system at once, so that a killed run keeps its steps."""
    text = json.dumps(plain(row), ensure_ascii=False, allow_nan=False)
    if not writes():
        return
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def writes() -> bool:
    """Whether this process, of those that make a run together, is the one that writes."""
    if "jax" not in sys.modules:  # a command line is read, and runs are compared, without it
        return True
    from emsedit_jax import sharding

    return sharding.is_first()


def plain(obj: Any) -> Any:
    """What JSON can hold: containers, text, numbers; of numpy and JAX arrays their values."""
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [plain(value) for value in obj]
    if obj is None or isinstance(obj, (str, bool, int)):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "__array__"):
        return plain(np.asarray(obj).tolist())
    raise TypeError(f"{type(obj).__name__} cannot be written as JSON")
