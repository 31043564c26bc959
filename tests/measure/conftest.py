import pytest

from emsedit_jax.edit.sites import resolve
from emsedit_jax.lm.model import load_lm
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["quick_compiles"]


@pytest.fixture(scope="module")
def lm():
    """The tiny recorded Llama."""
    return load_lm(tiny.MODEL)


@pytest.fixture(scope="module")
def sites(lm):
    return resolve(lm.config, tiny.SITES)
