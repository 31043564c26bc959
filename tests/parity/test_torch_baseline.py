"""The straightforward PyTorch way, which the benchmark times ours against, finds the same numbers."""

import pytest

pytest.importorskip("torch", reason="torch is the optional extra 'parity'")

from benchmarks import torch_baseline, torch_way
from emsedit_jax.errors import InputError
from emsedit_jax.run.prepare import prepare
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["quick_compiles"]


@pytest.fixture(scope="module")
def sides(quick_compiles):
    run = prepare(tiny.command("--config.editor.reg_coef=0.5").config)
    state = torch_baseline.started(run)
    return run, torch_baseline.Ours(run, state), torch_baseline.Theirs(run, state)


def test_both_sides_agree(sides):
    found = torch_baseline.differences(*sides)
    assert set(found) >= {"keys", "value gradients", "edits", "gradient of the weights", "gradient of the networks"}
    assert max(found.values()) < torch_baseline.AGREE


def test_a_difference_stops_the_benchmark(sides, monkeypatch):
    monkeypatch.setattr(torch_way, "EPSILON", 0.1)
    with pytest.raises(InputError, match=r"differ by more than 0\.001"):
        torch_baseline.differences(*sides)


def test_every_phase_runs_on_both_sides(sides):
    for mine, other in torch_baseline.phases(*sides).values():
        assert mine() is not None
        assert other() is not None


def test_other_editors_are_refused():
    with pytest.raises(InputError, match="editor=emsedit"):
        torch_baseline.main(["torch_baseline", *tiny.flags(editor="rledit")])
