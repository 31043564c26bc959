"""Checkpoints: the arrays of an unfinished stage with the place that they belong to, whole and unchanged or not used.

Orbax writes them, each at once or not at all. It loads bytes that changed on the disk without a word, so the digests of
all its files are written beside them, as a seal; where one does not match, the checkpoint before it is taken. A
checkpoint is removed only once a newer one is sealed, or when it was found damaged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from emsedit_jax import disk, sharding
from emsedit_jax.disk import file_sha256
from emsedit_jax.errors import InputError
from emsedit_jax.run import storing

KEPT = 2  # sealed ones: the newest, and one to fall back on
OLD = ".old"  # ending of a folder that is being removed


class Saved(NamedTuple):
    """What a checkpoint holds."""

    arrays: dict[str, np.ndarray]
    place: dict[str, Any]  # as JSON holds it


class Damaged(Exception):
    """A checkpoint that cannot be used; says why."""


class Checkpoints:
    """The checkpoints of one folder, numbered; the first process writes, all read."""

    def __init__(self, path: Path):
        self._path = path.absolute()  # orbax takes no other
        self._open: Any = None
        self._last = 0
        self._bad: set[int] = set()  # found damaged

    def save(self, arrays: Mapping[str, np.ndarray], place: Mapping[str, Any]) -> None:
        """Writes a checkpoint whole or not at all. Raises InputError where the folder cannot be written."""
        if not sharding.is_first():
            return
        import orbax.checkpoint as ocp

        manager, number = self._manager(), self._last + 1
        self._remove(self._bad)
        self._bad = set()
        items: dict[str, Any] = {"place": ocp.args.JsonSave(dict(place))}
        if arrays:
            items["state"] = ocp.args.StandardSave(dict(arrays))
        with storing.writing(self._path):
            try:
                with _said_once():
                    manager.save(number, args=ocp.args.Composite(**items), force=True)
            except ValueError as error:  # (tensorstore wraps what the disk says)
                code = re.search(r"os_error_code='(\d+)'", str(error))
                raise OSError(*((int(code[1]), os.strerror(int(code[1]))) if code else (str(error),))) from error
            self._last = number
            files = digests(self._path / str(number))
            disk.sync_all(self._path / str(number))
            disk.sync_folder(self._path)
        storing.write_json(self._sealed(number), {"files": files, "arrays": sorted(arrays)})
        self.thin(KEPT)

    def newest(self, odd: Callable[[Mapping[str, Any]], str] = lambda place: "") -> tuple[Saved | None, list[str]]:
        """(the newest one that is as it was written, what is wrong with those after it).

        `odd`: what is wrong with the place that one is of; "" where nothing is.
        """
        if not sharding.agreed(self._path.is_dir()):
            return None, []
        chosen, found, wrong = 0, None, []
        for number in sorted(self._manager().all_steps(), reverse=True) if sharding.is_first() else ():
            try:
                saved = self._read(number)
                if why := odd(saved.place):
                    raise Damaged(why)
                chosen, found = number, saved
                break
            except Damaged as fault:
                wrong.append(f"checkpoint {number}: {fault}")
                self._bad.add(number)
        chosen = sharding.agreed(chosen if found is not None else 0)
        if chosen and found is None:  # another process: it has to take the same one
            try:
                found = self._read(chosen)
            except Damaged as fault:
                raise InputError(f"checkpoint {chosen} is not the same to all processes: {fault}.") from None
        return found, wrong

    def thin(self, kept: int) -> None:
        """Removes all but the newest so many; those that were not sealed, or found damaged, do not count."""
        if sharding.is_first() and self._path.is_dir():
            steps = set(self._manager().all_steps())
            good = sorted(step for step in steps - self._bad if self._sealed(step).exists())
            self._remove(steps - set(good[-kept:]))

    def _remove(self, numbers: Collection[int]) -> None:
        """Removes those, of each the seal first: whatever a process that dies leaves of it is not believed."""
        with storing.writing(self._path):
            for number in numbers:
                self._sealed(number).unlink(missing_ok=True)
                self._manager().delete(number)

    def clear(self) -> None:
        """Removes all of them; a process that dies meanwhile leaves nothing that could be taken for one."""
        self.close()
        if sharding.is_first():
            with storing.writing(self._path):
                gone = self._path.with_name(self._path.name + OLD)
                shutil.rmtree(gone, ignore_errors=True)
                if self._path.exists():
                    self._path.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """Lets go of the folder."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _manager(self) -> Any:
        if self._open is None:
            import orbax.checkpoint as ocp

            alone = jax.process_index()  # this process waits for no other
            options = ocp.CheckpointManagerOptions(
                create=False,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=sharding.is_first(),
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=str(alone)
                )
                if jax.process_count() > 1
                else ocp.options.MultiprocessingOptions(),
            )
            with storing.writing(self._path):
                if sharding.is_first():
                    self._path.mkdir(parents=True, exist_ok=True)
                self._open = ocp.CheckpointManager(self._path, options=options)
            self._last = max(self._open.all_steps(), default=0)
        return self._open

    def _sealed(self, number: int) -> Path:
        return self._path / f"{number}.json"

    def _read(self, number: int) -> Saved:
        import orbax.checkpoint as ocp

        try:
            sealed = storing.read_json(self._sealed(number), "it is not used")
        except InputError as error:
            raise Damaged(str(error)) from None
        try:
            same = digests(self._path / str(number)) == sealed["files"]
        except OSError as error:
            raise Damaged(f"it cannot be read ({error})") from None
        if not same:
            raise Damaged("its files are not what was written")
        items: dict[str, Any] = {"place": ocp.args.JsonRestore()}
        if sealed["arrays"]:
            items["state"] = ocp.args.StandardRestore()
        found = self._manager().restore(number, args=ocp.args.Composite(**items))
        arrays = dict(found["state"]) if sealed["arrays"] else {}
        return Saved({name: np.asarray(value) for name, value in arrays.items()}, dict(found["place"]))


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """What fails in the library's threads is raised here, once all have told it: their own tracebacks are left out."""
    loud = [logging.getLogger(name) for name in ("absl", "asyncio")]
    was, hook = [logger.disabled for logger in loud], sys.unraisablehook

    def other(what: Any) -> None:
        if str(what.exc_value) != "Event loop is closed":  # (of tensorstore's threads, when a write has failed)
            hook(what)

    sys.unraisablehook = other
    logging.getLogger("asyncio").addFilter(_is_news)
    try:
        for logger in loud:
            logger.disabled = True
        yield
        sys.unraisablehook = hook
        logging.getLogger("asyncio").removeFilter(_is_news)  # where the write failed both stay: these threads are late
    finally:
        for logger, disabled in zip(loud, was, strict=True):
            logger.disabled = disabled


def _is_news(record: logging.LogRecord) -> bool:
    return "os_error_code" not in record.getMessage()


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below the folder."""
    return {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def flat(**trees: Any) -> dict[str, np.ndarray]:
    """The trees' leaves in host memory, named by tree and number; all processes must call it."""
    found = {name: jax.tree.leaves(tree) for name, tree in trees.items()}
    return {f"{name}.{i}": sharding.host(leaf) for name, leaves in found.items() for i, leaf in enumerate(leaves)}


def filled(name: str, like: Any, found: Mapping[str, np.ndarray], specs: Any = sharding.WHOLE) -> Any:
    """A tree as `flat` took it apart, on the devices; `like` has its structure, shapes and types.

    Raises InputError where the arrays are others.
    """
    leaves, tree = jax.tree.flatten(like)
    names = [f"{name}.{i}" for i in range(len(leaves))]
    for one, leaf in zip(names, leaves, strict=True):
        if one not in found or (found[one].shape, found[one].dtype) != (leaf.shape, leaf.dtype):
            raise InputError(f"the checkpoint holds other arrays than this run ({one}); name another --workdir.")
    return sharding.put(tree.unflatten([found[one] for one in names]), specs)


def listed(wrong: Sequence[str]) -> str:
    """What to say of checkpoints that cannot be used."""
    return f"{'; '.join(wrong)}: what it had is done again from the one before, or from the stage's beginning"
