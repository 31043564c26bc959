"""Several files of a folder replaced at once: whoever reads them finds all as they were, or all as they are to be."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from emsedit_jax import disk
from emsedit_jax.run import lock, storing, workdir
from emsedit_jax.run.workdir import PART, WHOLE


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty folder in `path`, which the caller holds; its files take their places there once the block ends.

    Files that are not in it stay. A block that fails leaves all as it was, and so does a program that dies in it. One
    that dies as the files take their places has replaced them: `finish` does the rest.

    Raises InputError where the folder cannot be written.
    """
    part = path / PART
    complete(path)
    with storing.writing(path):
        if part.exists():  # of a program that died
            shutil.rmtree(part)
        part.mkdir()
        try:
            yield part
            disk.sync_all(part)
            part.rename(path / WHOLE)  # this replaces them all
            disk.sync_folder(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    complete(path)


def finish(path: Path) -> None:
    """Before anything in `path` is read: brings what a program left which died in `replacing` to its places.

    Raises InputError where the folder cannot be written, or another program is at work there.
    """
    if workdir.is_on_the_way(path):
        with lock.held(path):
            complete(path)


def complete(path: Path) -> None:
    """As `finish`, for the caller who holds the folder."""
    whole = path / WHOLE
    with storing.writing(path):
        if not workdir.is_on_the_way(path):
            return
        files = sorted(whole.rglob("*"))
        for file in files:
            there = path / file.relative_to(whole)
            if file.is_dir():
                there.mkdir(exist_ok=True)
            else:
                file.replace(there)
        for folder in {there.parent for there in (path / file.relative_to(whole) for file in files)}:
            disk.sync_folder(folder)
        shutil.rmtree(whole)
