"""Being asked to stop: by the system that takes the machine away (SIGTERM), or by a person (Ctrl-C)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from emsedit_jax.errors import Preempted

WORDS = {
    signal.SIGTERM: "asked to stop: saving what is done",
    signal.SIGINT: "asked to stop: saving what is done (Ctrl-C again stops at once and saves nothing)",
}
_asked: list[int] = []  # the signals that came; handlers are the process's own, so is this
_batches = [0]  # that several processes have counted together


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Inside the block the first signal is remembered until the run comes to a place where it can stop.

    Among several processes JAX's own service passes the system's signal on; in a thread other than the main one, and
    there for Ctrl-C, nothing changes.
    """
    _asked.clear()
    if jax.process_count() > 1:
        yield
        return
    former = {}
    try:
        for number in WORDS:
            former[number] = signal.signal(number, _note)
    except ValueError:  # not the main thread
        pass
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _note(number: int, _frame: object) -> None:
    if _asked and number == signal.SIGINT:
        raise KeyboardInterrupt
    _asked.append(number)
    with contextlib.suppress(OSError):  # nobody may be there to read it; print is not for handlers
        os.write(2, f"{WORDS[signal.Signals(number)]}\n".encode())


def is_asked() -> bool:
    """Whether this process was asked to stop."""
    return bool(_asked)


def all_asked() -> bool:
    """Whether all processes, which must call this alike, are to stop now: where they all have come, the same place."""
    if jax.process_count() == 1:
        return is_asked()
    _batches[0] += 1
    return multihost_utils.reached_preemption_sync_point(_batches[0])


def poll() -> None:
    """Stops here, with what was saved before; all processes must call this alike. Raises Preempted if asked to."""
    if all_asked():
        raise Preempted("asked to stop")
