"""What is said to a person when the input is at fault: one line, what is wrong and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class InputError(Exception):
    """A mistake in what the user gave (file, flag, name, field); `launch.py` prints it as one line and exits with 2."""


class Preempted(Exception):
    """The run was asked to stop and has saved its state; `launch.py` says how to go on and exits with 75."""


def near(name: str, known: Iterable[str], count: int = 3, cutoff: float = 0.5) -> str:
    """Ends an error message about an unknown name with the nearest known; `""` where none is near.

    >>> near("num_sec", ["num_seq", "seed", "editor.lr"])
    " Did you mean 'num_seq'?"
    """
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), known, n=count, cutoff=cutoff)
    return f" Did you mean {' or '.join(repr(item) for item in close)}?" if close else ""


def spans(numbers: Sequence[int]) -> str:
    """Numbers in words.

    >>> spans([3, 4, 5, 9])
    '3-5, 9'
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(start) if start == stop else f"{start}-{stop}" for start, stop in found)


def together(faults: Iterable[str]) -> str:
    """All faults in one line; those that differ in a layer's number alone are told once: `missing layers.{3-5}.x`.

    The number is the first one between two dots; where it comes again in the same fault, it stands there too.

    >>> together(["missing layers.3.mlp", "missing layers.4.mlp", "unknown head"])
    'missing layers.{3-4}.mlp; unknown head'
    """
    alike: dict[str, list[int]] = {}
    for fault in faults:
        match = re.search(r"\.(\d+)\.", fault)
        pattern = fault.replace(match.group(), ".\0.") if match else fault
        alike.setdefault(pattern, []).extend([int(match.group(1))] if match else [])
    return "; ".join(pattern.replace("\0", _layers(layers)) for pattern, layers in alike.items())


def _layers(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{{{spans(sorted(numbers))}}}"
