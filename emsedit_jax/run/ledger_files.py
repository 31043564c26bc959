"""The files beside the ledger: a batch's weight change as the factors of its steps, or whole where that is smaller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open

from emsedit_jax import disk, sharding
from emsedit_jax.edit.factors import Factors
from emsedit_jax.errors import InputError
from emsedit_jax.lm.wheels import file_sha256
from emsedit_jax.run import storing
from emsedit_jax.run.ledger import Ledger, Record
from emsedit_jax.types import Sites

Part = tuple[np.ndarray | None, np.ndarray]  # a group's factors x [s n k] and y [s n v]; no x: y is the shift [s k v]
Steps = list[list[Part]]  # of every edit step, of every site group


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
    return step


def _load(ledger: Ledger, name: str, sha256: str) -> Steps:
    path = ledger.path / name
    if file_sha256(path) != sha256:
        raise ValueError("its bytes changed since it was written")
    with safe_open(path, framework="numpy") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    return _steps(ledger.sites, found)


def _steps(sites: Sites, found: dict[str, np.ndarray]) -> Steps:
    steps = []
    for i in range(1 + max(int(name.split(".")[0]) for name in found)):
        step = []
        for g, group in enumerate(sites):
            x_snk, y = found.get(f"{i}.{g}.x"), found[f"{i}.{g}.y"]
            s = len(group.layers)
            n = group.k if x_snk is None else x_snk.shape[1]
            if y.shape != (s, n, group.v) or (x_snk is not None and x_snk.shape != (s, n, group.k)):
                raise ValueError("it is of other sites")
            step.append((x_snk, y))
        steps.append(step)
    return steps
