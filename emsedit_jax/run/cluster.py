"""Several processes as one run: joining them, who speaks, and the mesh that a run is on."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.run import settings, slices

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
    by_hand = bool(cluster.coordinator)  # then nothing else has a say: a job of SLURM may start processes by hand
    give_threads(jax.config.values["jax_num_cpu_devices"])
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # on CPUs, no two programs' collectives at once
    try:
        jax.distributed.initialize(
            cluster.coordinator if by_hand else None,
            cluster.processes if by_hand else None,
            cluster.process if by_hand else None,
            local_device_ids=[] if not by_hand and alone_on_host() else None,
            cluster_detection_method="deactivate" if by_hand else None,
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


def alone_on_host() -> bool:
    """Whether SLURM or Open MPI started this process alone on its host, for all of the host's devices.

    JAX gives a process that they start one device, the one with its number on the host: right for one process a device.
    """
    told = os.environ.get
    if told("JAX_LOCAL_DEVICE_IDS"):  # JAX reads it
        return False
    hosts = told("SLURM_STEP_NUM_NODES")
    return told("OMPI_COMM_WORLD_LOCAL_SIZE") == "1" or (hosts is not None and told("SLURM_NTASKS") == hosts)


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


def check_alike(config: ml_collections.ConfigDict, mode: str) -> None:
    """That all processes were started with one command: others would wait for each other without an end.

    Raises InputError, in all of them, that names what differs.
    """
    if jax.process_count() == 1:
        return
    own = json.dumps(
        {"mode": mode} | {f"config.{name}": value for name, value in settings.flatten(config)}, default=str
    )
    told = [json.loads(bytes(one.astype(np.uint8))) for one in slices.gathered(np.frombuffer(own.encode(), np.uint8))]
    for number, one in enumerate(told):
        for name in told[0] | one:
            here, there = told[0].get(name), one.get(name)
            if here != there:
                raise InputError(
                    f"the processes were not started alike: process {number} has --{name}={there}, process 0 {here}; "
                    "give all of them the same command but for --process."
                )


@contextlib.contextmanager
def mesh_of(data: int, model: int, saved: bool = False) -> Iterator[str]:
    """Puts the mesh of so many by so many devices in force; gives it in words, nothing for a single device.

    Args:
      saved: nobody asked for it here, it is that of a folder: where it does not fit these devices, another does.

    Raises InputError as `sharding.make_mesh`.
    """
    if jax.config.values["jax_num_cpu_devices"] > 1:
        give_threads(jax.config.values["jax_num_cpu_devices"])
    mesh, instead = _made(data, model, saved)
    if mesh is None:
        yield f"one device{instead}" if instead else ""
        return
    with jax.set_mesh(mesh):
        hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        yield f"{mesh.shape[sharding.DATA]} x {mesh.shape[sharding.MODEL]} devices{hosts} (data x model){instead}"


def _made(data: int, model: int, saved: bool) -> tuple[jax.sharding.Mesh | None, str]:
    """(the mesh, what to say of it where it is in place of a saved one)."""
    try:
        return sharding.make_mesh(data, model), ""
    except InputError:
        if not saved:
            raise
    count = jax.device_count()
    along = count if model == -1 else min(model, count)  # for a model that needs as many devices as it had
    flags = "--config.mesh.data and --config.mesh.model name others"
    instead = f", in place of the workdir's {data} x {model}, which do not fit the {count} here: {flags}"
    return sharding.make_mesh(count // along, along), instead
