import pytest

from tests.measure.conftest import lm, sites
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["lm", "quick_compiles", "sites"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick_compiles):
    """A finished run's folder; tests look and do not touch."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    tiny.train(folder)
    return folder
