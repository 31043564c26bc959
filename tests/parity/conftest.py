"""Every recorded run is a parameter: `case` is any, `trained_case` one with a training, `recorded_model` a model."""

import pytest

from tests.parity import golden
from tests.quick_compiles import quick_compiles

__all__ = ["quick_compiles"]


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
