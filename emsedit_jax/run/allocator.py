"""The C library's allocator, told to keep what is freed.

XLA's CPU backend takes fresh memory for what each program computes on the way, and frees it at the end. Large pieces go
back to the system at once, which clears every page before it gives it out again: a tenth of an edit's time.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8  # of glibc's malloc.h
SETTINGS = {
    MMAP_MAX: 0,  # large pieces come from the heap too, ...
    ARENA_MAX: 1,  # ... from one for all threads, as what one frees another asks for, ...
    TRIM_THRESHOLD: 2**31 - 1,  # ... whose end stays,
    TOP_PAD: 16 << 20,  # and which grows by no less
}


def keep_freed() -> bool:
    """Applies the settings; whether this C library took them all. Call before there are threads."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(name, value) == 1 for name, value in SETTINGS.items()])
