"""Every recorded run is a parameter: `case` is any, `trained_case` one with a training, `recorded_model` a model."""

import jax
import pytest

from tests.parity import golden


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", golden.case_names(), indirect=True)
    if "trained_case" in metafunc.fixturenames:
        trained = [name for name in golden.case_names() if golden.is_trained(name)]
        metafunc.parametrize("trained_case", trained, indirect=True)
    if "recorded_model" in metafunc.fixturenames:
        metafunc.parametrize("recorded_model", golden.model_names())


@pytest.fixture
def case(request) -> golden.Case:
    return golden.load(request.param)


@pytest.fixture
def trained_case(request) -> golden.Case:
    return golden.load(request.param)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Tiny models are computed in no time but compiled for long: most of the compiler's optimisations are left out."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
