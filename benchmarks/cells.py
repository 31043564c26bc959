"""Runs of `launch.py` as the cells of a table: each in its own folder, made once; broken off, it is gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emsedit_jax.run import cli


def finished(folder: Path, flags: Sequence[str]) -> dict[str, Any] | None:
    """The summary of the run with these flags in `folder`, made now if it is not there; None where it diverged."""
    summary, diverged = folder / "summary.json", folder / "diverged.txt"
    if diverged.exists():
        return None
    if not summary.exists():
        from emsedit_jax.run import main as program
        from emsedit_jax.run.watch import Diverged

        print(f"\n== {folder.name}", flush=True)
        command = cli.read(["launch.py", *flags, f"--workdir={folder}"])
        try:
            program.run(command.config, command.workdir, command.mode)
        except Diverged as error:
            diverged.write_text(str(error), encoding="utf-8")
            return None
    return json.loads(summary.read_text(encoding="utf-8"))
