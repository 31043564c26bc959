"""Reading what the device has found only when it has something else to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

One = TypeVar("One")


def one_late(begun: Iterable[One]) -> Iterator[One]:
    """The same values, each handed on when the next one has been begun, so that reading it leaves no gap.

    Where the next one fails, the one before is handed on first.
    """
    waiting: list[One] = []
    try:
        for one in begun:
            waiting.append(one)
            del one  # whoever is handed it may let go of it
            if len(waiting) > 1:
                yield waiting.pop(0)
    except Exception:
        yield from waiting
        raise
    yield from waiting
