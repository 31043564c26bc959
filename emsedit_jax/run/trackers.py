"""Where a run's metrics go beside its own file: TensorBoard's event files, Weights & Biases, SwanLab.

A new one is a class with the two methods of `Tracker`, a row in `OPENERS` and a name in `settings.TRACKERS`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ml_collections

from emsedit_jax.errors import InputError
from emsedit_jax.run import storing
from emsedit_jax.run.workdir import Workdir

EVENTS = "events.out.tfevents"  # what TensorBoard knows its files by
PROJECT = "emsedit"  # what runs are filed under, unless WANDB_PROJECT or SWANLAB_PROJ_NAME say otherwise


class Tracker(Protocol):
    """Takes what a run measures. It may fail: the run then goes on without it.

    It is made when there is something to log, and again by a run that goes on, which then logs all of its steps anew.
    """

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Numbers by name; steps come in order, each once."""
        ...

    def close(self) -> None:
        """Nothing more comes, for now or for good."""
        ...


def check_installed(names: Sequence[str]) -> None:
    """Cheap, so that it can be asked before a model is loaded. Raises InputError where a tracker is not there."""
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise InputError(
                f"--config.track names {name}, which is not installed: pip install {name}, or leave it out."
            )


# ------------------------------------------------------------------------------------------ TensorBoard


class TensorBoard:
    """An event file in the workdir's tensorboard/, in place of what the run has left there before.

    Its first events tell a TensorBoard that has read that one to begin anew. Events are written when they come, by no
    thread, so that a full disk is told here.
    """

    def __init__(self, folder: Workdir, config: ml_collections.ConfigDict):
        with _without_torch():
            messages: Any = importlib.import_module("tensorboardX.proto.event_pb2")  # its names are made when it loads
        self._event = messages.Event
        folder.tensorboard.mkdir(exist_ok=True)
        self._path = _replaced(folder.tensorboard)
        self._write(file_version="brain.Event:2")
        self._write(step=0, session_log=messages.SessionLog(status=messages.SessionLog.START))

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        values = [{"tag": name, "simple_value": value} for name, value in scalars.items()]
        self._write(step=step, summary={"value": values})

    def close(self) -> None:
        """Nothing is open."""

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        with self._path.open("ab") as file:
            file.write(_record(event.SerializeToString()))


def _replaced(folder: Path) -> Path:
    """The new event file, whose name comes behind those of all others there, which are made empty.

    A TensorBoard that watches one goes on to the next from an empty file, but never from one that is gone; what was
    empty before goes.
    """
    newest = 0
    for old in folder.glob(f"{EVENTS}.*"):
        number = old.name.removeprefix(f"{EVENTS}.").partition(".")[0]
        newest = max(newest, int(number) if number.isdecimal() else 0)
        if old.stat().st_size:
            os.truncate(old, 0)
        else:
            old.unlink()
    return folder / f"{EVENTS}.{max(int(time.time()), newest + 1)}.{socket.gethostname()}"


def _record(content: bytes) -> bytes:
    """As TensorFlow's records are laid out: length, its checksum, content, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(content))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content)))
    )


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX loads torch where there is one: 200 MB, and nothing of it is used here."""
    if "torch" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules["torch"] = None  # an import of it fails
    try:
        yield
    finally:
        del modules["torch"]


# ------------------------------------------------------------------------------------------ those that are asked for


class WeightsAndBiases:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it in the workdir's wandb/."""

    def __init__(self, folder: Workdir, config: ml_collections.ConfigDict):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=folder.path.name,
            id=_run_id(folder.track),
            resume="allow",
            dir=str(folder.path),
            config=storing.plain(config.to_dict()),
        )
        self._sent = self._run.step  # steps that are there already: they are the same, and would be refused

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        if step >= self._sent:
            self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


class SwanLab:
    """A run of SwanLab; SWANLAB_MODE=offline keeps it in the workdir's swanlog/."""

    def __init__(self, folder: Workdir, config: ml_collections.ConfigDict):
        import swanlab

        with _signals_kept():
            self._run = swanlab.init(
                project=os.environ.get("SWANLAB_PROJ_NAME") or PROJECT,
                name=folder.path.name,
                id=_run_id(folder.track),
                resume="allow",
                log_dir=str(folder.path / "swanlog"),
                config=storing.plain(config.to_dict()),
            )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


def _run_id(path: Path) -> str:
    """By which a run that goes on is known to be the same one; drawn once."""
    if not path.exists():
        storing.write_json(path, {"id": secrets.token_hex(4)})
    return str(storing.read_json(path, "remove it, and the run is a new one to its trackers")["id"])


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ctrl-C stays the run's own: it saves its state and stops."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    if signal.getsignal(signal.SIGINT) is not handler:
        signal.signal(signal.SIGINT, handler)


OPENERS: dict[str, Callable[[Workdir, ml_collections.ConfigDict], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "swanlab": SwanLab,
}
