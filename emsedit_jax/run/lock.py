"""One program at a time in a folder; who comes second is told who is there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from emsedit_jax.errors import InputError
from emsedit_jax.run import storing

LOCK, HOLDER = ".lock", ".lock.json"


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps the folder, made where there is none, for this program as long as the block lasts; its death frees it.

    Raises InputError where another one works in it, or it cannot be written.
    """
    if not storing.writes():
        yield
        return
    lock = FileLock(path / LOCK)
    with storing.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise InputError(f"{path} is in use{_holder(path)}; wait for it, or name another --workdir.") from None
        (path / HOLDER).write_text(json.dumps(_this()), encoding="utf-8")
    try:
        yield
    finally:
        for name in (HOLDER, LOCK):
            (path / name).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def tried(path: Path) -> Iterator[bool]:
    """As `held`, but says whether the folder is kept: not where another one works in it, or it cannot be written.

    The lock of a program that died is taken, and gone after the block.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(path))
        except InputError:
            kept = False
        else:
            kept = True
        yield kept


def _this() -> dict[str, str | int]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _holder(path: Path) -> str:
    """Who holds it, as far as that can be read."""
    try:
        found = json.loads((path / HOLDER).read_text(encoding="utf-8"))
        return f" by process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
