"""Freed memory is kept, so that the next program need not have it cleared again; not in batch mode."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
from emsedit_jax.run import cli
if {batches} is not None:
    cli.settle({batches})
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 64 << 20
def touch():
    piece = libc.malloc(size)
    ctypes.memset(piece, 1, size)
    libc.free(piece)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(batches: int | None) -> int:
    """Pages that had to be given out anew, in a program of so many batches; None: in any other."""
    command = [sys.executable, "-c", CODE.format(batches=batches)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is of glibc")
def test_what_is_freed_is_given_out_again():
    pages = 4 * (64 << 20) // 4096
    assert faults(None) > pages // 2
    assert faults(1) > pages // 2
    assert faults(10) < pages // 100
