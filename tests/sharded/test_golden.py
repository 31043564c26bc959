"""Recorded runs over eight devices: the numbers of one device, from end to end."""

import jax
import numpy as np
import pytest

from tests.parity import golden, ours, test_end_to_end
from tests.parity.compare import STAGE, assert_close
from tests.parity.golden import Case
from tests.sharded.conftest import MESHES

NAMED = (  # on every mesh: five families, every editor
    "llama_zsre_seq_emsedit",
    "llama-tied_zsre_seq_emsedit",
    "llama_zsre_seq_ultraedit_even",
    "gptj_counterfact_seq_malmen",
    "gpt2_fever_seq_mend",
    "gemma2_ripple_seq_rledit_mended",
)
IN_CI = (("llama_zsre_seq_emsedit", "2x4"), ("gpt2_fever_seq_mend", "4x2"))
MATCHED = ("all", "imitate")  # of the cases' `follow`: those that must match


def chosen() -> list:
    """Every run to be matched on 2 x 4, and those named on the other meshes too; most of them long."""
    names = [name for name in golden.case_names() if golden.about(name)["follow"] in MATCHED]
    pairs = [(name, "2x4") for name in names]
    pairs += [(name, mesh) for name in NAMED for mesh in MESHES if mesh != "2x4" and name in names]
    return [pytest.param(*pair, marks=() if pair in IN_CI else pytest.mark.long) for pair in pairs]


@pytest.mark.parametrize(("name", "mesh"), chosen(), indirect=["mesh"])
def test_a_recorded_run_over_devices_gives_the_numbers_of_one(name, mesh):
    case = golden.load(name)
    alone = test_end_to_end.run(case)
    with jax.set_mesh(mesh):
        there = test_end_to_end.run(case)
    pairs = [pair for key in alone.shifts for pair in by_site(case, key, there.shifts[key], alone.shifts[key])]
    assert_close(pairs + by_site(case, "final", there.deltas, alone.deltas), STAGE)
    assert alone.scores.keys() == there.scores.keys()
    for key, shares in alone.scores.items():
        np.testing.assert_array_equal(there.scores[key], shares, err_msg=key)


def by_site(case: Case, what: str, found, expected) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name, found, expected) of every site."""
    return [
        (f"{what}/{name}", np.asarray(one)[s], np.asarray(other)[s])
        for group, one, other in zip(ours.sites(case), found, expected, strict=True)
        for s, name in enumerate(group.names)
    ]
