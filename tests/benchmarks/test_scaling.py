"""Work is divided by the devices: capture and solve of the published setting, on every mesh of eight."""

import pytest

from benchmarks import plan, scaling
from emsedit_jax.run import cli
from tests.run.tiny import ROOT


@pytest.mark.long
def test_a_devices_share_of_capture_and_solve_falls_with_their_number():
    config = cli.read(["scaling", *plan.with_paths([f"--config={ROOT / 'configs/zsre_llama.py'}"])]).config
    rows = list(scaling.rows(config))
    assert {(row["data"], row["model"]) for row in rows} == set(scaling.MESHES)
    for row in rows:
        for name in ("capture", "solve"):
            for what, found in row[name].items():
                where = f"{row['data']} x {row['model']}: {name}, {what}"
                assert 0.85 <= found["share"] <= 1.15, where
