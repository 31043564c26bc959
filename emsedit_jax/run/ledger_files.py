"""The files beside the ledger: a batch's weight change as the factors of its steps, or whole where that is smaller.

They are mapped into memory: checking one and adding it up takes no room of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emsedit_jax import disk, sharding
from emsedit_jax.disk import file_sha256
from emsedit_jax.edit.factors import Factors
from emsedit_jax.errors import InputError
from emsedit_jax.run import storing
from emsedit_jax.run.ledger import Ledger, Record
from emsedit_jax.run.ledger_lines import is_whole
from emsedit_jax.types import Sites

Part = tuple[np.ndarray | None, np.ndarray]  # a group's factors x [s n k] and y [s n v]; no x: y is the shift [s k v]
Steps = list[list[Part]]  # of every edit step, of every site group
NAME = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})\.[xy]")  # of an array: step, site group, which factor
MOST_HEADER_BYTES = 2**26


def name_of(number: int) -> str:
    """The file of a batch."""
    return f"{number:06d}.safetensors"


def snapshot_of(number: int) -> str:
    """The file of all edits that are in force after a record."""
    return f"snapshot-{number:06d}.safetensors"


def gathered(steps: Sequence[Sequence[Factors]]) -> Steps:
    """The steps' factors in host memory; all processes must call it."""
    return [[(None if x is None else sharding.host(x), sharding.host(y)) for x, y in step] for step in steps]


def write(path: Path, steps: Steps) -> str:
    """Writes a batch's file whole or not at all; returns its sha256."""
    arrays = {}
    for i, step in enumerate(steps):
        for g, (x_snk, y) in enumerate(step):
            arrays[f"{i}.{g}.y"] = np.asarray(y)
            if x_snk is not None:
                arrays[f"{i}.{g}.x"] = np.asarray(x_snk)
    return _save(path, arrays)


def write_dense(path: Path, deltas: Sequence[np.ndarray]) -> str:
    """Writes all edits as they are; returns the file's sha256."""
    return _save(path, {f"0.{g}.y": delta_skv for g, delta_skv in enumerate(deltas)})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> str:
    with storing.replacing(path) as temporary:
        disk.save_arrays(arrays, temporary)
        return file_sha256(temporary)


def load(ledger: Ledger, record: Record) -> Steps:
    """The steps of a batch.

    Raises InputError where the file is missing, is not what was written, or does not fit the ledger's sites.
    """
    try:
        return _load(ledger, record.file, record.sha256)
    except disk.UNREADABLE as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{ledger.path / record.file}: the weight change of batch {record.number} is lost ({str(why).lower()}); "
            f"take it back with --mode=undo --batches={record.number}, or {record.number}- for all later ones, too."
        ) from None


def load_snapshot(ledger: Ledger, record: Record) -> list[Part] | None:
    """All edits after the record; None where they are not what was written."""
    try:
        (step,) = _load(ledger, snapshot_of(record.number), record.snapshot)
    except disk.UNREADABLE:
        return None
    return step if all(x is None for x, _ in step) else None


def dropped(ledger: Ledger, at: int | None = None) -> list[Path]:
    """What is still there of the files that go, by what so many records say; all records by default."""
    before = ledger.records[: ledger.dropped(at)]
    names = {record.file for record in before} | {snapshot_of(record.number) for record in before[:-1]}
    return [path for path in ledger.path.iterdir() if path.name in names]


def drop(ledger: Ledger, at: int | None = None) -> str:
    """Removes those, unless the snapshot that stands for them is damaged; returns what is wrong, "" where nothing is.

    Raises InputError where they cannot be removed.
    """
    there = dropped(ledger, at)
    if there and load_snapshot(ledger, ledger.records[ledger.dropped(at) - 1]) is None:
        return f"{ledger.path / snapshot_of(ledger.dropped(at))} is damaged: the files that it stands for are kept"
    with storing.writing(ledger.path):
        for path in there:
            path.unlink(missing_ok=True)
    return ""


def _load(ledger: Ledger, name: str, sha256: str) -> Steps:
    data = np.memmap(ledger.path / name, np.uint8, mode="r")
    if hashlib.sha256(data.data).hexdigest() != sha256:
        raise ValueError("its bytes changed since it was written")
    return _steps(ledger.sites, _arrays(data))


def _arrays(data: np.ndarray) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file, where they lie. Raises ValueError, KeyError and TypeError."""
    size = int.from_bytes(data[:8].tobytes(), "little")
    if not 0 < size <= min(MOST_HEADER_BYTES, len(data) - 8):
        raise ValueError("its header is cut off")
    header, data = dict(json.loads(data[8 : 8 + size].tobytes())), data[8 + size :]
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        shape, (begin, end) = about["shape"], about["data_offsets"]
        places = (*shape, begin, end)
        if about["dtype"] != "F32" or not all(is_whole(one, 0, len(data)) for one in places):
            raise ValueError(f"{name} is no array of float32 numbers")
        if begin > end or end - begin != 4 * math.prod(shape):
            raise ValueError(f"{name} is of another size")
        found[name] = data[begin:end].view(np.float32).reshape(shape)
    return found


def _steps(sites: Sites, found: dict[str, np.ndarray]) -> Steps:
    """Raises ValueError and KeyError where the arrays are none of these sites' steps."""
    places = [NAME.fullmatch(name) for name in found]
    if not all(places):
        raise ValueError("it holds other arrays")
    steps = []
    for i in range(1 + max(int(place[1]) for place in places if place)):
        step = []
        for g, group in enumerate(sites):
            x_snk, y = found.get(f"{i}.{g}.x"), found[f"{i}.{g}.y"]
            s = len(group.layers)
            n = group.k if x_snk is None else y.shape[1] if y.ndim == 3 else 0
            if y.shape != (s, n, group.v) or (x_snk is not None and x_snk.shape != (s, n, group.k)):
                raise ValueError("it is of other sites")
            step.append((x_snk, y))
        steps.append(step)
    return steps
