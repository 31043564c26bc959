"""The passes over one sort of questions: what each has found is plain, so that asking goes on behind those done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from emsedit_jax.measure.late import one_late

Unit = TypeVar("Unit")
Made = TypeVar("Made")


class Passes:
    """What the passes have found so far, in their order, each as JSON holds it, every float as it is."""

    def __init__(
        self,
        found: Iterable[Any] = (),
        begun: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
    ):
        """
        Args:
          found: of the first passes, which are not made again.
          begun: called before each of the others.
          ended: called when there is one more in `found`; what it raises breaks the asking off.
        """
        self.found, self.begun, self._ended = list(found), begun, ended

    def add(self, found: Any) -> None:
        """One more pass has found this."""
        self.found.append(found)
        self._ended()

    def go(
        self, units: Iterable[Unit], make: Callable[[int, Unit], Made], read: Callable[[Unit, Made], Any]
    ) -> list[Any]:
        """What all passes find, each `read` while the device makes the next one.

        Args:
          units: what each pass is over.
          make: given a pass's number and unit, begins it.
          read: given the unit and what was made, the same as JSON holds it.
        """

        def made() -> Iterator[tuple[Unit, Made]]:
            for number, unit in itertools.islice(enumerate(units), len(self.found), None):
                self.begun()
                yield unit, make(number, unit)

        for unit, one in one_late(made()):
            self.add(read(unit, one))
        return self.found
