"""Named arrays on disk: one safetensors file that says what it holds, with a digest of every array's bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from emsedit_jax import disk
from emsedit_jax.errors import InputError
from emsedit_jax.run import storing

SEAL = "seal"  # of what the file says of itself
KEY = "emsedit_jax"  # the one key of the file's metadata: several are written in an order that varies


def digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """sha256 of each array's bytes."""
    return {name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for name, value in arrays.items()}


def write(path: Path, arrays: dict[str, np.ndarray], kind: str, about: Mapping[str, Any]) -> dict[str, str]:
    """Writes the file whole or not at all; returns the digests, which it carries too.

    Args:
      kind: what it holds, "edits" or "networks".
      about: what else it says of itself, as JSON holds it.
    """
    found = digests(arrays)
    header = {**about, "format": _format(kind), "sha256": found}
    header.pop(SEAL, None)  # of a file that is written again
    header[SEAL] = _seal(header)
    with storing.replacing(path) as temporary:
        disk.save_arrays(arrays, temporary, metadata={KEY: json.dumps(header, sort_keys=True)})
    return found


def read(path: Path, kind: str, remedy: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(what the file says of itself, its arrays).

    Raises InputError for a damaged file, one of another kind or program, and bytes that changed since it was written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(json.loads((file.metadata() or {}).get(KEY, "{}")))
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        saved = dict(about.get("sha256", {}))
    except disk.UNREADABLE as error:
        raise InputError(f"{path} is damaged, or no file of {kind} ({error}); {remedy}.") from None
    if about.get("format") != _format(kind):
        raise InputError(f"{path} does not hold {kind} of this program (format {about.get('format')!r}); {remedy}.")
    if about.pop(SEAL, None) != _seal(about):
        raise InputError(f"{path} is damaged, or no file of {kind}: its header is not what was written; {remedy}.")
    for name, digest in digests(found).items():
        if saved.get(name) != digest:
            raise InputError(f"{path} is damaged: the bytes of {name} changed since they were saved; {remedy}.")
    return about, found


def about(path: Path, kind: str) -> dict[str, Any]:
    """What the file says of itself, without its arrays. Raises InputError where that is not what was written."""
    try:
        with safe_open(path, framework="numpy") as file:
            found = dict(json.loads((file.metadata() or {}).get(KEY, "{}")))
    except disk.UNREADABLE as error:
        raise InputError(f"{path} is damaged, or no file of {kind} ({error}).") from None
    if found.get("format") != _format(kind) or found.pop(SEAL, None) != _seal(found):
        raise InputError(f"{path} is damaged, or no file of {kind}: its header is not what was written.")
    return found


def _seal(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _format(kind: str) -> str:
    return f"emsedit-jax {kind} 1"
