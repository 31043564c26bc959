"""The benchmark of the solve, at a size that takes no time."""

import pytest

from benchmarks import solve


@pytest.mark.parametrize(("k", "n", "chosen"), [(48, 16, "dual"), (24, 64, "primal")])
def test_every_form_gives_the_same_and_the_smaller_system_is_chosen(k, n, chosen):
    found = solve.cell(k, n, v=40)
    assert found["chosen"] == chosen
    assert all(found[name]["error"] < 1e-4 and found[name]["seconds"] > 0 for name in solve.FORMS)
    assert found["direct_over_chosen"]["median"] > 0


def test_the_size_of_the_claim_is_in_the_default_grid():
    assert (14_336, 128) in solve.CELLS
    assert set(solve.CELLS) <= set(solve.FULL)
