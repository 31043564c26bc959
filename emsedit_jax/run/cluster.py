"""Several processes as one run: joining them, who speaks, and the mesh that a run is on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from emsedit_jax import sharding
from emsedit_jax.errors import InputError

LOST_AFTER_S = 30  # a process that is silent for so long is lost, and stops the others
JOIN_WITHIN_S = 300
LONGEST_PATH = 4096  # bytes
THREADS_PER_DEVICE = 2  # one in a program, one that starts the next


class Cluster(NamedTuple):
    """How processes find each other; empty where SLURM, GKE, Cloud TPU or Open MPI tell."""

    coordinator: str = ""  # HOST:PORT of the first
    processes: int = 0
    process: int = -1  # which one this is


def join(cluster: Cluster) -> None:
    """Waits for all processes; from here on the first one alone writes and speaks. Call before any device is used.

    Raises InputError where they do not find each other.
    """
    by_hand = bool(cluster.coordinator)
    give_threads(jax.config.values["jax_num_cpu_devices"])
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # on CPUs, no two programs' collectives at once
    try:
        jax.distributed.initialize(
            cluster.coordinator if by_hand else None,
            cluster.processes if by_hand else None,
            cluster.process if by_hand else None,
            initialization_timeout=JOIN_WITHIN_S,
            heartbeat_timeout_seconds=LOST_AFTER_S,
            shutdown_timeout_seconds=LOST_AFTER_S,
        )
    except (RuntimeError, ValueError) as error:
        why = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"the processes do not find each other ({why}): outside of SLURM, GKE, Cloud TPU and Open MPI start each "
            "with --coordinator=HOST:PORT --processes=N --process=I; see docs/DEVICES.md."
        ) from error
    if not sharding.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process


def give_threads(devices: int) -> None:
    """Threads enough for so many devices on this process's CPU, -1 for one. Call before any device is used.

    XLA has one for each core, and a program that waits for others in a collective holds one for each of its devices:
    where the next program's start holds the rest, none goes on.
    """
    os.environ.setdefault("NPROC", str((os.cpu_count() or 1) + THREADS_PER_DEVICE * max(devices, 1)))


def agree(path: Path) -> Path:
    """The first process's folder, in all of them: its default name is made of the time."""
    if jax.process_count() == 1:
        return path
    sent = np.zeros(LONGEST_PATH, np.uint8)
    name = os.fsencode(path)
    sent[: len(name)] = np.frombuffer(name, np.uint8)
    found = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    return Path(os.fsdecode(found.tobytes().rstrip(b"\0")))


@contextlib.contextmanager
def mesh_of(data: int, model: int) -> Iterator[str]:
    """Puts the mesh of so many by so many devices in force; gives it in words, nothing for a single device.

    Raises InputError as `sharding.make_mesh`.
    """
    if jax.config.values["jax_num_cpu_devices"] > 1:
        give_threads(jax.config.values["jax_num_cpu_devices"])
    mesh = sharding.make_mesh(data, model)
    if mesh is None:
        yield ""
        return
    with jax.set_mesh(mesh):
        hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        yield f"{mesh.shape[sharding.DATA]} x {mesh.shape[sharding.MODEL]} devices{hosts} (data x model)"
