"""The folder of one run: what lies where, and when it may be written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax import disk
from emsedit_jax.errors import InputError
from emsedit_jax.run import defaults, settings, storing


class Workdir(NamedTuple):
    """Where a run's files lie."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def curve(self) -> Path:
        return self.path / "curve.png"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def edits(self) -> Path:
        return self.path / "edits.safetensors"

    @property
    def ledger(self) -> Path:
        return self.path / "edits"

    @property
    def made_of(self) -> Path:
        return self.path / "made_of.json"

    @property
    def conflicts(self) -> Path:
        return self.path / "conflicts.txt"

    @property
    def stages(self) -> Path:
        return self.path / "stages"

    @property
    def evaluation(self) -> Path:
        return self.path / "eval-stages"

    @property
    def session(self) -> Path:
        return self.path / "session.json"

    @property
    def facts(self) -> Path:
        return self.path / "facts.jsonl"

    @property
    def networks(self) -> Path:
        return self.path / "hypernet.safetensors"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def track(self) -> Path:
        return self.path / "track.json"

    @property
    def harness(self) -> Path:
        return self.path / "harness"


# Fields that change no number of a run: it goes on with others.
FREE = ("mesh.data", "mesh.model", "compile_cache", "checkpoint.every", "track")
HIDDEN = (".lock", ".lock.json")  # of the program that works in the folder
PART, WHOLE = ".part", ".whole"  # files that are to be replaced together: not all there yet; on the way to their places


def check_workdir(path: Path, config: ml_collections.ConfigDict) -> None:
    """Whether a run with `config` may write into `path`; touches nothing, so it can be asked before the long work.

    It may where nothing is yet, and where a run with the same config was begun, or is finished.

    Raises:
        InputError: a run with another config, or files of somebody else lie there.
    """
    if not storing.writes():
        return
    workdir = Workdir(path)
    elsewhere = "name another folder with --workdir, or remove this one"
    if path.exists() and not path.is_dir():
        raise InputError(f"--workdir={path} is a file, not a folder; {elsewhere}.")
    if not is_taken(path):
        return
    if workdir.session.exists():
        raise InputError(f"{path} holds a session with edits, and no run; {elsewhere}.")
    if workdir.made_of.exists():
        raise InputError(f"{path} holds edits that were merged or made into one, and no run; {elsewhere}.")
    if not workdir.config.exists():
        raise InputError(f"{path} is not empty and holds no run of this program; {elsewhere}.")
    differing = differences(filled(storing.read_json(workdir.config, elsewhere)), storing.plain(config.to_dict()))
    if differing:
        finished = "finished " if workdir.summary.exists() else ""
        listed = "; ".join(f"config.{name}: {there} there, {here} here" for name, there, here in differing)
        raise InputError(f"{path} holds a {finished}run with other settings ({listed}); {elsewhere}.")


def is_taken(path: Path) -> bool:
    """Whether anything lies there beside locks. Raises InputError where that cannot be told."""
    with storing.reading(path):
        return path.exists() and not all(_is_hidden(one) for one in path.iterdir())


def _is_hidden(path: Path) -> bool:
    """Whether it is a lock, or a file that a process left which died as it wrote it."""
    return path.name in (*HIDDEN, PART) or _is_left(path)


def _is_left(path: Path) -> bool:
    return re.fullmatch(r"\.[\w.-]+-[0-9a-f]{8}\.(json|jsonl|safetensors|png|html)", path.name) is not None


def is_on_the_way(path: Path) -> bool:
    """Whether a program died there as files took their places: `together.finish` does the rest. Raises InputError."""
    with storing.reading(path):
        return (path / WHOLE).is_dir()


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, value there, value here) of all fields that matter to a run and differ between two configs."""
    one, other = dict(settings.flatten(there)), dict(settings.flatten(here))
    names = [name for name in one | other if name not in FREE]
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def open_workdir(path: Path, config: ml_collections.ConfigDict) -> Workdir:
    """Makes the folder of a run and writes its config.json; what a run broken off there has finished stays.

    Raises:
        InputError: `check_workdir` says no, or the folder cannot be written.
    """
    check_workdir(path, config)
    workdir = Workdir(path)
    with storing.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        disk.sync_folder(path.parent)
    sweep(workdir)
    storing.write_json(workdir.config, config.to_dict())
    return workdir


def sweep(workdir: Workdir) -> None:
    """Removes files that a process left which died as it wrote them. Raises InputError where that cannot be done."""
    if not storing.writes():
        return
    with storing.writing(workdir.path):
        for folder in (workdir.path, workdir.ledger, workdir.stages):
            for left in filter(_is_left, folder.iterdir() if folder.is_dir() else ()):
                left.unlink(missing_ok=True)
        shutil.rmtree(workdir.path / PART, ignore_errors=True)


def saved_config(path: Path) -> ml_collections.ConfigDict:
    """The config of the run in `path`, as it was when the run began, locked.

    Raises:
        InputError: there is no run, or its config.json is damaged.
    """
    workdir = Workdir(path)
    if not workdir.config.is_file():
        raise InputError(f"{path} holds no run (no config.json); name the folder of one with --workdir.")
    found = filled(storing.read_json(workdir.config, "mend it, or name another folder with --workdir"))
    return ml_collections.ConfigDict(with_tuples(found)).lock()


def filled(found: dict[str, Any]) -> dict[str, Any]:
    """A saved config with the fields that came after it was saved, at their defaults: as if they had been there."""
    editor = found.get("editor", {}).get("name")
    if editor not in settings.EDITORS:
        return found
    usual = storing.plain(defaults.config(editor).to_dict())
    return {
        name: usual[name] | value if isinstance(value, dict) and isinstance(usual.get(name), dict) else value
        for name, value in (usual | found).items()
    }


def with_tuples(obj: Any) -> Any:
    """JSON's lists as the tuples that configs hold."""
    if isinstance(obj, dict):
        return {key: with_tuples(value) for key, value in obj.items()}
    return tuple(with_tuples(value) for value in obj) if isinstance(obj, list) else obj
