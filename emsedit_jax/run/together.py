"""Several files of a folder replaced at once: whoever reads them finds all as they were, or all as they are to be."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

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
            for file in filter(Path.is_file, part.rglob("*")):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            part.rename(path / WHOLE)  # this replaces them all
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
        for file in sorted(whole.rglob("*")):
            there = path / file.relative_to(whole)
            if file.is_dir():
                there.mkdir(exist_ok=True)
            else:
                file.replace(there)
        shutil.rmtree(whole)
