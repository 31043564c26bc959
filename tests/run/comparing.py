"""Finished runs' folders, written by hand, to be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import common
from emsedit_jax.measure.scores import Score, Scores
from emsedit_jax.run import compare, compare_runs, items, storing, workdir
from emsedit_jax.run.compare_runs import Comparison, Difference

N = 12
ROWS = tuple(f"mine.json row {m}" for m in range(N))
SWING = np.array([0.0, 1.0] * (N // 2))
SUMMARY = {"edits": N, "editor": "emsedit", "seed": 0, "seconds": {"train": 30.0, "edit": 6.0}, "peak_rss_mb": 2048.0}


def score(values: Any, names: Sequence[str] = ROWS) -> Score:
    return Score(np.broadcast_to(np.asarray(values, np.float64), len(names)).copy(), tuple(names))


UNEDITED = {"ES": score(0.125), "LS": score(SWING), "perplexity": score(math.log(8), ["window 0", "window 1"])}
WEAK = {"ES": score(0.25), "LS": score(SWING), "perplexity": score(math.log(10), ["window 0", "window 1"])}
STRONG = {"ES": score(0.75), "LS": score(1 - SWING), "perplexity": score(math.log(20), ["window 0", "window 1"])}


def make(folder: Path, edited: Scores, unedited: Scores = UNEDITED, **changes: Any) -> Path:
    """A finished run's folder; `changes` of its config, with __ for the dot."""
    config = common.get_config()
    for name, value in changes.items():
        group, _, field = name.rpartition("__")
        (config[group] if group else config)[field] = value
    opened = workdir.open_workdir(folder, config)
    items.write(opened.scores, {"unedited": unedited, "edited": edited})
    storing.write_json(opened.summary, SUMMARY)
    return folder


def two(folder: Path) -> tuple[Path, Path]:
    """A weak run and a strong one."""
    weak = make(folder / "runs/weak", WEAK, editor__lr=1e-6)
    return weak, make(folder / "runs/strong", STRONG, editor__lr=0.5)


def compared(*folders: Path) -> Comparison:
    return compare_runs.compare(compare.load(folders))


def by_score(found: Comparison) -> dict[str, Difference]:
    return {one.score: one for one in found.differences}
