"""Batch mode: one batch of many facts, in one pass, in several, and with its rows streamed through the host."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from emsedit_jax.edit import step
from emsedit_jax.meta.methods import METHODS
from tests.run import tiny

ONE_SITE = "--config.model.edit_modules=('model.layers.4.mlp.gate_proj',)"
BATCH = ("--config.num_seq=1", "--config.dataset.n_edits=12", "--config.eval.examples=0", ONE_SITE)
PASSES = "--config.dataset.batch_tokens=60"


@pytest.fixture
def streamed(monkeypatch):
    """Rows of each shift that was summed up chunk by chunk."""
    seen, shift_from = [], step.stream.shift_from

    def counting(sites, rule, spec, theta, stats, traces):
        seen.append([trace.keys[0].shape[1] for trace in traces])
        return shift_from(sites, rule, spec, theta, stats, traces)

    monkeypatch.setattr(step.stream, "shift_from", counting)
    return seen


@pytest.mark.parametrize("editor", METHODS)
def test_a_batch_in_several_passes_and_streamed_gives_the_same_edits(tmp_path, editor, streamed):
    method = METHODS[editor]
    whole = tiny.train(tmp_path / "whole", *BATCH, editor=editor)
    kinds = (3 if method.locality else 2) if method.learned else 0  # that training asks for
    assert whole["prefix_store"]["misses"] == kinds + 2  # then editing and scoring, a pass each
    cut = tiny.train(tmp_path / "cut", *BATCH, PASSES, editor=editor)
    assert cut["prefix_store"]["misses"] >= 2 * kinds + 2 + 1
    assert streamed == []
    stream = tiny.train(tmp_path / "stream", *BATCH, PASSES, "--config.editor.rows_at_once=8", editor=editor)
    steps = 2 if editor == "emsedit" else 1
    assert len(streamed) == steps * (2 if method.learned else 1)  # of training, and of editing
    assert min(map(len, streamed)) > 1

    assert whole["scores"]["edited"] == cut["scores"]["edited"] == stream["scores"]["edited"]
    expected = load_file(tmp_path / "whole" / "edits.safetensors")
    for other in ("cut", "stream"):
        found = load_file(tmp_path / other / "edits.safetensors")
        for name, delta in expected.items():
            np.testing.assert_allclose(found[name], delta, rtol=0, atol=1e-4 * np.abs(delta).max())
    if method.learned:
        (mine,), (theirs,) = (
            [row for row in tiny.rows(tmp_path / name) if row["phase"] == "train"] for name in ("whole", "stream")
        )
        for name in ("equiv_loss", "locality_loss", "drift", "grad_norm"):
            np.testing.assert_allclose(theirs[name], mine[name], rtol=1e-3)


def test_emsedit_in_batch_mode_has_one_network_and_a_loss_a_step(tmp_path):
    tiny.train(tmp_path / "run", *BATCH)
    nets = {name.split("/")[0] for name in load_file(tmp_path / "run" / "hypernet.safetensors")}
    assert nets == {"net0"}
    (row,) = [row for row in tiny.rows(tmp_path / "run") if row["phase"] == "train"]
    assert len(row["equiv_loss"]) == len(row["drift"]) == len(row["grad_norm"]) == 2
