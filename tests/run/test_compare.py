"""Runs side by side, from their folders to files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emsedit_jax.run import compare, storing
from emsedit_jax.run.workdir import Workdir
from tests.refusals import refused
from tests.run import comparing, tiny
from tests.run.comparing import WEAK, N, make

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two(tmp_path):
    """A weak run and a strong one."""
    return comparing.two(tmp_path)


def harmed(two, harm):
    harm(Workdir(two[1]))
    return compare.load(two)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: run.path.rename(run.path.with_name("strongest")), "there is no such folder. Did you mean"),
        (lambda run: run.config.unlink(), "holds no run (no config.json)"),
        (lambda run: run.summary.unlink(), "is not finished (no summary.json)"),
        (lambda run: run.scores.unlink(), "a run of an earlier version, without scores item by item"),
        (lambda run: storing.write_json(run.scores, {}), "holds no scores of the edited model"),
        (lambda run: run.scores.write_text("{"), "cannot read"),
        (lambda run: run.summary.write_text("{"), "cannot read"),
        (lambda run: run.summary.write_text("[]"), "is damaged"),
        (lambda run: run.config.write_text("{"), "config.json"),
    ],
)
def test_folders_that_cannot_be_compared(two, harm, said):
    with refused(str(two[1]), said):
        harmed(two, harm)


def test_a_run_is_not_compared_with_itself(two, monkeypatch):
    monkeypatch.chdir(two[0].parent)
    with refused("--workdir names weak twice"):
        compare.load([two[0], Path("weak")])


def test_folders_of_one_name_are_told_apart(tmp_path):
    folders = [make(tmp_path / name, WEAK) for name in ("x/a/run", "x/b/run", "y/b/run", "alone")]
    assert [run.name for run in compare.load(folders)] == ["a/run", "x/b/run", "y/b/run", "alone"]


# ------------------------------------------------------------------------------------------ the command


def test_the_command_writes_its_files(two, tmp_path, capsys):
    target = tmp_path / "side by side"
    assert tiny.call("--mode=compare", f"--workdir={two[0]},{two[1]}", f"--to={target}") == 0
    said = capsys.readouterr().out
    assert "devices" not in said
    assert said.endswith(f"files in {target}\n")
    assert sorted(found.name for found in target.iterdir()) == ["compare.json", "compare.md", "compare.png"]

    written = tiny.read(target / "compare.json")
    assert [run["name"] for run in written["runs"]] == ["weak", "strong"]
    assert [run["workdir"] for run in written["runs"]] == [str(folder) for folder in two]
    assert written["settings"] == {"editor.lr": [1e-6, 0.5]}
    assert [one["run"] for one in written["models"]] == [None, "weak", "strong"]
    assert written["models"][2]["scores"]["ES"] == {"total": 75.0, "low": 75.0, "high": 75.0, "items": N}
    assert written["scores"]["perplexity"] == {"words": "perplexity of running text", "unit": "", "better": -1}
    first = written["differences"][0]
    assert (written["against"], first["run"], first["score"], first["verdict"]) == ("weak", "strong", "ES", "better")
    assert first["p_holm"] == pytest.approx(3 * first["p"])

    text = (target / "compare.md").read_text(encoding="utf-8")
    assert text.startswith("# weak / strong\n")
    for line in (
        "| editor.lr | 1e-06 | 0.5 |",
        "| score | unedited | weak | strong |",
        "| --- | ---: | ---: | ---: |",
        "| **answer tokens right** |  |  |  |",
        "| ES, % | 12.5 [12.5,12.5] | 25.0 [25.0,25.0] | 75.0 [75.0,75.0] |",
        "| **strong less weak** |  |  |  |  |  |",
        "| LS |  | +0.0 [-50.0,+50.0] | 12 | 1.000 | 1.000 |",
        "- ES: edited prompts",
        "![scores with their intervals](compare.png)",
    ):
        assert line in text.splitlines()


def test_the_command_refuses_in_one_line_and_writes_nothing(two, tmp_path, capsys):
    target = tmp_path / "there"
    assert tiny.call("--mode=compare", f"--workdir={two[0]},{two[0]}x", f"--to={target}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not target.exists()
    target.mkdir()
    (target / "mine").touch()
    assert tiny.call("--mode=compare", f"--workdir={two[0]},{two[1]}", f"--to={target}") == 2
    assert "is there already" in capsys.readouterr().err
    assert [found.name for found in target.iterdir()] == ["mine"]


def test_a_comparison_loads_no_jax(two, tmp_path):
    args = ["launch.py", "--mode=compare", f"--workdir={two[0]},{two[1]}", f"--to={tmp_path / 'there'}"]
    code = (
        f"import sys; sys.argv = {json.dumps(args)}; import launch\n"
        "code = launch.cli.exit_code(launch.main, sys.argv)\n"
        "print(code, [name for name in ('jax', 'flax', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 []", "")
