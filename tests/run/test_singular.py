"""A ridge system without a solution in float32 is told, never scored: a tiny lambda, and facts asked in the same words.

RLEdit in one step, so that a batch's edits are its one shift.
"""

import functools
import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from emsedit_jax.run import arrays, ledger
from tests.run import test_diverged, tiny
from tests.run.test_diverged import SITE, SMALL

train = functools.partial(tiny.train, editor="rledit")
stopped = functools.partial(test_diverged.stopped, editor="rledit")


def with_lambda(source, path, log_lambda):
    """The networks of a run with another ridge coefficient at every site."""
    with safe_open(source / "hypernet.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()[arrays.KEY])
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    for name, value in found.items():
        if name.endswith("/lamda"):
            found[name] = np.full_like(value, log_lambda)
    arrays.write(path, found, "networks", about)


def facts(path, *numbers):
    """A file of these rows, the answers in their own order."""
    rows = json.loads((tiny.DATA / "zsre_eval.json").read_text())
    path.write_text(json.dumps([rows[number] | {"ans": rows[m]["ans"]} for m, number in enumerate(numbers)]))
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory, quick_compiles):
    """A finished run of one site."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    train(folder, *SMALL)
    return folder


@pytest.mark.parametrize("late", [False, True], ids=["scored", "read late"])
def test_a_singular_system_stops_with_the_edits_of_the_batches_before(sound, tmp_path, capsys, late):
    with_lambda(sound, tmp_path / "singular.safetensors", -80)
    load = f"--config.editor.load={tmp_path / 'singular.safetensors'}"
    mixed = facts(tmp_path / "mixed.json", 0, 1, 2, 3, 5, 5, 5, 5)  # the second batch asks one question four times
    more = ["--config.eval.final_only"] if late else []
    line = stopped(capsys, tmp_path / "run", load, f"--config.dataset.valid_path={mixed}", *more)
    assert line.startswith(f"edit batch 1, step 0, site {SITE}: the equations of")
    assert "singular" in line
    assert "or edit fewer facts at once that are asked in the same words." in line
    assert line.endswith(f"in {tmp_path / 'run'}: hypernet.safetensors and edits.safetensors.")
    assert [(row["phase"], row["batch"]) for row in tiny.rows(tmp_path / "run")] == [("edit", 0)]
    (kept,) = load_file(tmp_path / "run" / "edits.safetensors").values()
    (shift,) = tiny.rows(tmp_path / "run")[0]["shift_norm"]
    assert np.linalg.norm(kept) == pytest.approx(shift[SITE], rel=1e-5)
    assert shift[SITE] > 0


def test_the_same_facts_with_the_networks_own_lambda_are_solved(sound, tmp_path):
    mixed = facts(tmp_path / "mixed.json", 0, 1, 2, 3, 5, 5, 5, 5)
    more = (f"--config.editor.load={sound}", f"--config.dataset.valid_path={mixed}")
    train(tmp_path / "run", *SMALL, *more)
    errors = [value for row in tiny.rows(tmp_path / "run") for step in row["solve_error"] for value in step.values()]
    assert max(errors) < 1e-4


def lasting(run):
    """All files but TensorBoard's, which are named by the time; of the ledger what it says without its times."""
    found = {name: content for name, content in tiny.files(run).items() if not name.startswith("tensorboard/")}
    return found | {f"edits/{ledger.NAME}": ledger.mark_of(run / "edits")}


def test_a_run_that_stopped_can_be_begun_again(sound, tmp_path, capsys):
    with_lambda(sound, tmp_path / "networks.safetensors", -80)
    mixed = facts(tmp_path / "mixed.json", 0, 1, 2, 3, 5, 5, 5, 5)
    flags = (f"--config.editor.load={tmp_path / 'networks.safetensors'}", f"--config.dataset.valid_path={mixed}")
    first = stopped(capsys, tmp_path / "run", *flags)
    before = lasting(tmp_path / "run")
    assert stopped(capsys, tmp_path / "run", *flags) == first
    assert lasting(tmp_path / "run") == before
    with_lambda(sound, tmp_path / "networks.safetensors", 0)  # what the command reads was put right
    train(tmp_path / "run", *SMALL, *flags)
    assert len(tiny.rows(tmp_path / "run")) == 2
