"""Finished runs side by side, from their folders to a table, a picture and a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emsedit_jax.errors import InputError, near
from emsedit_jax.measure.scores import measure
from emsedit_jax.run import items, settings, storing, workdir
from emsedit_jax.run.compare_runs import Comparison, Run, compare
from emsedit_jax.run.workdir import Workdir

AGAIN = "make the run again in another folder"


def run_compare(paths: Sequence[Path], to: Path) -> None:
    """Shows the finished runs in these folders side by side; writes compare.json, compare.md and compare.png to `to`.

    Raises:
        InputError: a folder holds no finished run with scores, the runs share no items, or `to` is taken.
    """
    from emsedit_jax.run import compare_plot, compare_table

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to={to} is there already: name a folder that is empty, or not there yet.")
    found = compare(load(paths))
    with storing.writing(to):
        to.mkdir(parents=True, exist_ok=True)
    storing.write_json(to / "compare.json", as_json(found))
    with storing.replacing(to / "compare.md") as temporary:
        temporary.write_text(compare_table.markdown(found, "compare.png"), encoding="utf-8")
    compare_plot.plot(to / "compare.png", found)
    compare_table.show(found)
    print(f"files in {to}", flush=True)


def load(paths: Sequence[Path]) -> tuple[Run, ...]:
    """The runs in these folders. Raises InputError where one is missing, unfinished, without scores, or named twice."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise InputError(f"--workdir names {path} twice; name different runs.")
        seen.add(path.resolve())
    found = names([path.resolve() for path in paths])
    return tuple(_load(path, name) for path, name in zip(paths, found, strict=True))


def names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents' as tell them apart. The paths are absolute and differ."""
    depth = [1] * len(paths)
    while True:
        found = [Path(*path.parts[-n:]).as_posix() for path, n in zip(paths, depth, strict=True)]
        counts = Counter(found)
        if len(counts) == len(paths):
            return found
        depth = [n + (counts[name] > 1) for n, name in zip(depth, found, strict=True)]


def _load(path: Path, name: str) -> Run:
    folder = Workdir(path)
    if not path.is_dir():
        others = [str(one) for one in sorted(path.parent.glob("*")) if Workdir(one).config.is_file()]
        raise InputError(f"--workdir={path}: there is no such folder.{near(str(path), others)}")
    config = workdir.saved_config(path)
    if not folder.summary.is_file():
        raise InputError(f"{path} holds a run that is not finished (no summary.json): finish it, or leave it out.")
    if not folder.scores.is_file():
        raise InputError(
            f"{path} holds a run of an earlier version, without scores item by item (no scores.json): make it again in "
            "another folder, or leave it out."
        )
    scores = items.read(folder.scores)
    if not scores.get("edited"):
        raise InputError(f"{folder.scores} holds no scores of the edited model: make the run again in another folder.")
    return Run(name, path, dict(settings.flatten(config)), storing.read_json(folder.summary, AGAIN), scores)


def as_json(found: Comparison) -> dict[str, Any]:
    """The content of compare.json; a model's `run` is null for the unedited one of all runs."""
    kept = ("editor", "model", "seed", "edits", "seconds", "peak_rss_mb", "peak_device_mb")
    told = {name: measure(name) for column in found.columns for name in column.cells}
    return {
        "runs": [
            {"name": run.name, "workdir": run.path} | {key: run.summary.get(key) for key in kept} for run in found.runs
        ],
        "settings": found.settings,
        "scores": {name: {"words": one.words, "unit": one.unit, "better": one.better} for name, one in told.items()},
        "models": [
            {
                "run": column.run,
                "edited": column.edited,
                "scores": {name: cell._asdict() for name, cell in column.cells.items()},
            }
            for column in found.columns
        ],
        "differences": [one._asdict() | {"verdict": one.verdict} for one in found.differences],
        "against": found.runs[0].name,
        "notes": found.notes,
    }
