import re
import subprocess
import sys
from pathlib import Path

import pytest

from emsedit_jax.meta.methods import METHODS
from emsedit_jax.run.settings import FIELDS

ROOT = Path(__file__).parents[1]
QUICKSTART = "--config=configs/quickstart.py"


def launch(*args, cwd=ROOT):
    command = [sys.executable, str(ROOT / "launch.py"), *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([QUICKSTART, "--config.numseq=3"], "'num_seq'"),
        ([QUICKSTART, "--config.dataset.n_edits=ten"], "--config.dataset.n_edits=ten"),
        ([f"{QUICKSTART}:editor=emsdit"], "'emsedit'"),
        ([QUICKSTART, "--mode=tarin"], "'train'"),
        (["--config=configs/quickstat.py"], "'configs/quickstart.py'"),
        (["--config=configs/zsre_llama.py"], "--config.dataset.train_path"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, said):
    done = launch(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_mistake_writes_nothing(tmp_path):
    done = launch(f"--config={ROOT / 'configs/quickstart.py'}", "--config.num_seq=0", cwd=tmp_path)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_help_is_short_and_names_the_flags():
    done = launch("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) < 40
    assert max(map(len, done.stdout.splitlines())) <= 120
    for flag in ("--config=", "--workdir=", "--mode=", "--config.dataset.n_edits=", "--config.editor.load="):
        assert flag in done.stdout
    for editor in METHODS:
        assert editor in done.stdout
    for name in re.findall(r"--config\.([\w.]+)", done.stdout):
        assert name == "FIELD" or name in FIELDS


def test_a_mistake_is_answered_without_loading_jax():
    code = (
        "import sys; sys.argv = ['launch.py', '--config=configs/quickstart.py', '--mode=x']; import launch\n"
        "code = launch.cli.exit_code(launch.main, sys.argv)\n"
        "print(code, [name for name in ('jax', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "2 []"
