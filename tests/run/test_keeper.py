import types

import pytest

from emsedit_jax.run import keeper
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.resources import CompileClock


@pytest.mark.parametrize(("seconds", "worth"), [(0.01, 5.0), (0.1, 5.0), (1.0, 50.0)])
def test_what_takes_long_to_save_is_saved_more_seldom(tmp_path, monkeypatch, seconds, worth):
    now = [100.0]

    def save(self, arrays, place):
        now[0] += seconds

    monkeypatch.setattr(keeper, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(keeper.Checkpoints, "save", save)
    kept = keeper.Keeper(tmp_path / "kept", 1, PhaseClock(CompileClock()), tmp_path / "metrics.jsonl", {})
    now[0] += 4.9
    assert not kept.is_due_at_once()
    now[0] += 0.2
    assert kept.is_due_at_once()
    kept.save({}, {})
    now[0] += worth - 0.1
    assert not kept.is_due_at_once()
    now[0] += 0.2
    assert kept.is_due_at_once()
