"""What is said to a person when the input is at fault: one line, what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """A mistake in what the user gave (file, flag, name, field); `launch.py` prints it as one line and exits with 2."""


def near(name: str, known: Iterable[str], count: int = 3) -> str:
    """Ends an error message about an unknown name with the nearest known: `" Did you mean 'a' or 'b'?"`, or `""`."""
    known = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), known, n=count, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(item) for item in close)}?" if close else ""
