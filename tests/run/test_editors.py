"""Every editor from the command line, in a sequence of batches."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from emsedit_jax.meta.methods import METHODS
from tests.run import tiny


def phases(folder):
    return [(row["phase"], row["batch"]) for row in tiny.rows(folder)]


@pytest.mark.parametrize("editor", METHODS)
def test_every_editor_runs_from_end_to_end(tmp_path, editor):
    summary = tiny.train(tmp_path / "run", "--config.eval.examples=0", editor=editor)
    method = METHODS[editor]
    assert (summary["editor"], summary["edits"]) == (editor, 8)
    learning = {"never": 2, "batch": 2, "always": 1}[method.stepwise] if method.learned else 0
    assert phases(tmp_path / "run") == [("train", j) for j in range(learning)] + [("edit", 0), ("edit", 1)]
    assert (tmp_path / "run" / "hypernet.safetensors").exists() == method.learned

    for row in tiny.rows(tmp_path / "run"):
        assert ("solve_error" in row) == (editor != "mend")
        assert {"equiv_loss", "grad_norm"} <= set(row) or row["phase"] == "edit"
        assert min(jax.tree.leaves(row["shift_norm"])) > 0
        if row["phase"] == "train":
            assert (max(row["locality_loss"]) > 0) == method.locality
            assert min(row["grad_norm"]) > 0
    found = load_file(tmp_path / "run" / "edits.safetensors")
    assert sorted(found) == sorted(tiny.SITES)
    assert all(np.abs(delta).max() > 0 for delta in found.values())
    if editor in ("emsedit", "rledit", "malmen"):  # the others' shifts hurt a random model as often as they help
        assert summary["scores"]["edited"]["ES"] > summary["scores"]["unedited"]["ES"]


@pytest.mark.parametrize("editor", ["rledit", "malmen", "ultraedit"])
def test_every_editor_takes_several_steps(tmp_path, editor):
    tiny.train(tmp_path / "run", "--config.editor.iters=3", "--config.eval.examples=0", editor=editor)
    for row in tiny.rows(tmp_path / "run"):
        assert len(row["edit_loss"]) == len(row["shift_norm"]) == 3
        taken_back = editor == "malmen" and row["phase"] == "train"
        assert len(set(row["edit_loss"])) == (1 if taken_back else 3)  # each captures on what the one before left
