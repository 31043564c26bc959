"""For every test: eight CPU devices, and compiled programs let go before there are more than the kernel can map."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # for meshes; without one in force a test runs on the first of them
os.environ.setdefault("NPROC", "18")  # threads for them, as `cluster.give_threads` has them

MAPS = Path("/proc/self/maps")
OFTEN = 10  # tests between two looks at the mappings: a look reads a long file
TESTS = itertools.count()
MANY = 20_000  # of 65,530, Linux's usual limit; a compiled program takes about 20, and beyond it compiling crashes


@pytest.fixture(autouse=True)
def bounded_programs() -> Iterator[None]:
    """Clears JAX's caches once the process has many memory mappings."""
    yield
    if next(TESTS) % OFTEN == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY:
        jax.clear_caches()
