"""What programs are compiled for without having it."""

import json
import math
import os
import subprocess
import sys

import pytest

from benchmarks import peaks, target
from emsedit_jax.errors import InputError
from tests.run.tiny import MODEL, ROOT

PLANS = all(map(target.has, target.MODULES.values()))


@pytest.mark.parametrize("kind", target.DEVICES)
def test_every_device_has_a_published_peak(kind):
    assert peaks.peak(target.DEVICES[kind].name) is not None


@pytest.mark.parametrize(
    ("count", "axes", "torus"),
    [
        (1, 2, (1, 1)),
        (2, 2, (1, 2)),
        (4, 2, (2, 2)),
        (8, 2, (2, 4)),
        (64, 2, (8, 8)),
        (1, 3, (1, 1, 1)),
        (4, 3, (2, 2, 1)),
        (8, 3, (2, 2, 2)),
        (16, 3, (2, 2, 4)),
        (64, 3, (4, 4, 4)),
    ],
)
def test_the_chips_of_a_slice_lie_in_a_torus(count, axes, torus):
    assert target.torus_of(count, axes) == torus
    assert math.prod(torus) == count


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [("h10", 1, "h100"), ("h100", 0, "at least 1"), ("v5e", 6, "1, 2, 4"), ("v5p", 512, "up to 256")],
)
def test_devices_that_there_are_not_are_refused(kind, count, words):
    with pytest.raises(InputError, match=words):
        target.chosen(kind, count, cpu=False)


@pytest.mark.parametrize(("kind", "compiler"), [("a100", "cuda"), ("v5p", "tpu")])
def test_a_device_is_compiled_for_where_its_compiler_is_installed(kind, compiler, monkeypatch, capsys):
    monkeypatch.setattr(target, "has", lambda module: module == target.MODULES[compiler])
    assert target.chosen(kind, 8, cpu=False) == target.Target(kind, 8, compiler)
    assert target.chosen(kind, 8, cpu=True).compiler == "cpu"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["h200", "v6e"])
def test_stderr_is_told_what_to_install_where_cpus_are_compiled_for_instead(kind, monkeypatch, capsys):
    monkeypatch.setattr(target, "has", lambda _: False)
    assert target.chosen(kind, 8, cpu=False).compiler == "cpu"
    (line,) = capsys.readouterr().err.splitlines()
    assert kind in line
    assert ".[plan]" in line


@pytest.mark.skipif(not PLANS, reason="takes the extra `plan`")
@pytest.mark.parametrize(("device", "count", "name"), [("v5e", 4, "TPU v5 lite"), ("a100", 2, "NVIDIA A100")])
def test_a_plan_is_compiled_for_the_device_itself(device, count, name):
    sites = "--config.model.edit_modules=('model.layers.4.mlp.gate_proj',)"
    flags = [f"--config={ROOT / 'configs/zsre_smollm2.py'}", f"--config.model.name_or_path={MODEL}", sites]
    args = [*flags, f"--device={device}", f"--devices={count}", "--config.editor.rank=8", "--config.editor.iters=1"]
    left = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    command = [sys.executable, "-m", "benchmarks.plan", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=left, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["compiled_for"] == name
    assert found["fits"]
    assert found["programs"]["capture"]["collectives"]
