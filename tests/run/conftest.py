import pytest

from emsedit_jax.edit.sites import resolve
from emsedit_jax.lm.model import load_lm
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["quick_compiles"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick_compiles):
    """A finished run's folder; tests look and do not touch."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    tiny.train(folder)
    return folder


@pytest.fixture(scope="module")
def lm():
    """The tiny recorded Llama."""
    return load_lm(tiny.MODEL)


@pytest.fixture(scope="module")
def sites(lm):
    return resolve(lm.config, tiny.SITES)
