import jax
import pytest

from tests.run import tiny


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Tiny models are computed in no time but compiled for long: most of the compiler's optimisations are left out."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick_compilation):
    """A finished run's folder; tests look and do not touch."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    tiny.train(folder)
    return folder
