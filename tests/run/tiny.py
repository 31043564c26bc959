"""Whole runs in seconds: the command line, in this process, on the tiny recorded Llama and the recorded facts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import launch
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.run import cli, metrics
from emsedit_jax.run.command import Command

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests/golden/models/llama"
DATA = ROOT / "tests/golden/data/zsre"
SITES = ("model.layers.3.mlp.gate_proj", "model.layers.4.mlp.gate_proj")  # the last of five: the least to compile
MODULES = "--config.model.edit_modules="  # given twice, its tuples are joined


def flags(*more: str, editor: str = "emsedit") -> list[str]:
    """Two batches of four facts, in two steps by emsedit, else in one; `more` flags come last, so they win."""
    small = ["--config.editor.rank=8", "--config.editor.n_blocks=1"] if METHODS[editor].learned else []
    small += ["--config.editor.max_steps=1"] if editor == "mend" else []  # a hundred otherwise
    others = any(flag.startswith(MODULES) for flag in more)
    modules = [] if others else [f"{MODULES}('model.layers.{{3..4}}.mlp.gate_proj',)"]
    return [
        f"--config={ROOT / 'configs/common.py'}:editor={editor}",
        f"--config.model.name_or_path={MODEL}",
        *modules,
        "--config.mesh.data=1",  # tests have eight devices
        "--config.dataset.name=zsre",
        f"--config.dataset.train_path={DATA / 'zsre_train.json'}",
        f"--config.dataset.valid_path={DATA / 'zsre_eval.json'}",
        "--config.dataset.n_edits=4",
        "--config.num_seq=2",
        "--config.editor.lr=0.05",  # large enough that a random model's answers change
        "--config.eval.examples=2",
        "--config.eval.max_new_tokens=4",
        "--noconfig.eval.further",  # many programs to compile
        "--noconfig.compile_cache",  # where programs are kept is a setting of the whole process
        f"--config.editor.iters={2 if editor == 'emsedit' else 1}",
        *small,
        *more,
    ]


def command(*more: str, editor: str = "emsedit") -> Command:
    """What the flags ask for, checked."""
    return cli.read(["launch.py", *flags(*more, editor=editor)])


def call(*args: str) -> int:
    """`python launch.py ARGS`, in this process; returns the exit code."""
    return cli.exit_code(launch.main, ["launch.py", *args])


def python(*args: str, env: Mapping[str, str] = MappingProxyType({})) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False)


def train(workdir: Path, *more: str, editor: str = "emsedit") -> dict[str, Any]:
    """A whole run into `workdir`; returns its summary."""
    assert call(*flags(f"--workdir={workdir}", *more, editor=editor)) == 0
    return read(workdir / "summary.json")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(workdir: Path) -> list[dict[str, Any]]:
    """The metrics, step by step."""
    return metrics.read((workdir / "metrics.jsonl").read_bytes())[0]


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder and of those in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
