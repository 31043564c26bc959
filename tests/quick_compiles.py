"""For tests that compile many programs which then run for microseconds: compiling is all their time."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_compiles() -> Iterator[None]:
    """Leaves out most of the compiler's optimisations, which take most of its time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
