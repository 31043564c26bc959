import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax.run import resources


def test_device_and_versions_are_described():
    found = resources.describe()
    assert found["device"]["count"] == len(jax.devices())
    assert found["device"]["platform"] == jax.devices()[0].platform
    assert found["versions"]["jax"] == jax.__version__
    assert found["host"]["cpus"] >= 1
    assert f"jax {jax.__version__}" in resources.devices_line()


def test_peak_memory_follows_what_is_held():
    block = np.ones(400 * 2**20, np.uint8)
    peak = resources.peak_rss_mb()
    assert 400 < peak < 2**16
    del block
    assert resources.peak_rss_mb() > peak - 4  # the system counts in batches of pages


def test_the_clock_counts_programs_once_and_only_while_open():
    def program(x):
        return jnp.sin(x) * 3.5 + 1

    with resources.CompileClock() as clock:
        compiled = jax.jit(program)
        compiled(np.ones(3, np.float32))
        first, seconds = clock.programs, clock.seconds
        compiled(np.ones(3, np.float32))
        again = clock.programs
        compiled(np.ones(4, np.float32))
    assert first == again == 1
    assert seconds > 0
    assert clock.programs == 2
    assert clock.seconds > seconds
    jax.jit(lambda x: x - 1.25)(np.ones(3, np.float32))
    assert clock.programs == 2
