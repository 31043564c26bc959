"""The README's first command on the real small model, as a newcomer runs it: minutes, and a download the first time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_quickstart_changes_a_real_models_facts(tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "launch.py", "--config=configs/quickstart.py", f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)

    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    before, after = summary["scores"]["unedited"], summary["scores"]["edited"]
    assert after["ES"] >= 80
    assert after["GS"] >= 60
    assert after["LS"] >= before["LS"] - 5
    assert summary["peak_rss_mb"] < 3000
    assert summary["edits"] == 100
    assert len(summary["examples"]) == 5

    for name, scores in (("unedited", before), ("after editing", after)):
        row = next(line for line in done.stdout.splitlines() if line.startswith("│") and name in line)
        published = [round(scores[key], 1) for key in ("ES", "GS", "LS")]
        assert [float(part) for part in row.split() if part[0].isdigit()] == published
    assert "s per edit · peak memory" in done.stdout
