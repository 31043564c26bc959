"""A run whose numbers get out of hand: one line, exit code 2, and what was good before it on disk."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from emsedit_jax.run import train as train_room
from tests.run import tiny

SITE = "model.layers.4.mlp.gate_proj"
SMALL = (f"{tiny.MODULES}('{SITE}',)", "--config.eval.examples=0")


def stopped(capsys, folder, *more, editor="emsedit"):
    """The one line that a run ends with."""
    capsys.readouterr()
    assert tiny.call(*tiny.flags(*SMALL, *more, f"--workdir={folder}", editor=editor)) == 2
    found = capsys.readouterr()
    assert "Traceback" not in found.err
    assert "after editing" not in found.out + found.err  # nothing was scored
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert found.err.endswith(f"{line}\n")
    assert not (folder / "summary.json").exists()
    return line.removeprefix("error: ")


def left(folder):
    """Its files; the results of finished stages lie in a folder of their own."""
    assert (folder / "stages").is_dir()
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def finite(path):
    return all(np.isfinite(value).all() for value in load_file(path).values())


@pytest.mark.parametrize("editor", ["emsedit", "mend", "ultraedit"])
def test_an_eta_out_of_bounds_stops_at_the_first_batch(tmp_path, capsys, editor):
    line = stopped(capsys, tmp_path / "run", "--config.editor.lr=1e30", editor=editor)
    phase = "edit" if editor == "ultraedit" else "train"
    assert line.startswith(f"{phase} batch 0, step 0, site {SITE}: ")
    assert "the edits have diverged" in line
    assert "Lower --config.editor.lr" in line
    if editor == "ultraedit":
        assert line.endswith(" Nothing was saved.")
        assert left(tmp_path / "run") == ["config.json"]
    else:
        assert line.endswith(f" What was good before is in {tmp_path / 'run'}: hypernet.safetensors.")
        assert left(tmp_path / "run") == ["config.json", "hypernet.safetensors"]
        assert finite(tmp_path / "run" / "hypernet.safetensors")


@pytest.mark.parametrize(
    ("editor", "more", "start"),
    [
        ("emsedit", [], "edit batch 0, step 0"),  # the one update comes after the last batch of training
        ("emsedit", ["--config.editor.n_epochs=2"], "train batch 0 of trajectory 1, step 0"),
        ("emsedit", ["--config.train.update_every=batch"], "train batch 1, step 0"),
        ("malmen", ["--config.editor.max_steps=2"], "train batch 1, step 0"),
        ("emsedit", ["--config.train.holdout=1"], "holdout batch 0, step 0"),
    ],
)
def test_an_update_out_of_bounds_stops_at_the_next_batch(tmp_path, capsys, editor, more, start):
    line = stopped(capsys, tmp_path / "run", "--config.editor.meta_lr=1e15", *more, editor=editor)
    assert line.startswith(f"{start}, site {SITE}: ")
    assert "meta_lr" in line
    assert "edits.safetensors" not in left(tmp_path / "run")
    assert finite(tmp_path / "run" / "hypernet.safetensors")
    good = {"edit batch 0": 2, "train batch 0 of trajectory 1": 2, "holdout batch 0": 2}.get(start.split(",")[0], 1)
    assert [row["phase"] for row in tiny.rows(tmp_path / "run")] == ["train"] * good


@pytest.mark.parametrize("update_every", ["trajectory", "batch", "step"])
def test_an_update_that_overflows_is_not_made(tmp_path, capsys, update_every):
    """The networks saved are those before it: none of their numbers is one of the update's."""
    flags = (f"--config.train.update_every={update_every}", "--config.editor.meta_lr=1e25")
    line = stopped(capsys, tmp_path / "run", *flags)
    place = "train" if update_every == "trajectory" else "train batch 0"
    assert line.startswith(f"{place}: the optimiser's step would make network_norm inf: it was not taken. Lower --con")
    assert line.endswith(f" What was good before is in {tmp_path / 'run'}: hypernet.safetensors.")
    saved = load_file(tmp_path / "run" / "hypernet.safetensors")
    assert all(np.abs(value).max() < 1e6 for name, value in saved.items() if "norm.count" not in name)


def test_the_best_networks_outlive_a_later_trajectory(tmp_path, capsys, monkeypatch):
    """The first trajectory's networks do on the facts held out; those of the second break down."""
    seen, real = [], train_room.try_out

    def try_out(run, state, held, number):
        if number == 1:
            raise train_room.Diverged("holdout batch 0 of trajectory 1: broke down.", None, state)
        seen.append(np.array(state.thetas[0][0]["lr"]))
        return real(run, state, held, number)

    monkeypatch.setattr(train_room, "try_out", try_out)
    more = ("--config.train.holdout=1", "--config.editor.n_epochs=2", "--config.editor.meta_lr=0.01")
    line = stopped(capsys, tmp_path / "run", *more)
    assert line.startswith("holdout batch 0 of trajectory 1: broke down. What was good before is in ")
    saved = load_file(tmp_path / "run" / "hypernet.safetensors")
    (rates,) = [value for name, value in saved.items() if name.startswith("net0/") and name.endswith("/lr")]
    np.testing.assert_array_equal(rates, seen[0])
