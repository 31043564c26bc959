"""Meshes of the eight CPU devices that tests have."""

import jax
import pytest

from emsedit_jax import sharding
from tests.quick_compiles import quick_compiles

__all__ = ["quick_compiles"]
MESHES = {"8x1": (8, 1), "4x2": (4, 2), "2x4": (2, 4), "1x8": (1, 8)}


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> jax.sharding.Mesh:
    """The mesh that the test's parameter names, data x model; the test puts it in force."""
    found = sharding.make_mesh(*MESHES[request.param])
    assert found is not None
    return found
