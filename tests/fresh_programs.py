"""For tests that compare runs to the last bit: all of their programs are compiled alike."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def fresh_programs() -> None:
    """Lets go of what other modules have compiled, perhaps with fewer optimisations, hence other roundings."""
    jax.clear_caches()
