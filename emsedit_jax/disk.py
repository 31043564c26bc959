"""What a disk refuses, told in one line, and names for files and folders that are not whole yet."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from emsedit_jax.errors import InputError

# What comes of arrays and of what a file says of them, whoever wrote it: the library looks for types that numpy lacks,
# JSON may be nested too deep or hold something else than it should.
UNREADABLE = (
    *(OSError, SafetensorError, ValueError, RecursionError),
    *(KeyError, IndexError, TypeError, AttributeError),
)


try:
    import fcntl
except ImportError:  # Windows has none: nothing is swept there
    fcntl = None

SUMS = "SHA256SUMS"  # of an export's files, as `sha256sum -c` reads them


@contextlib.contextmanager
def told(deed: str, path: Path, remedy: str) -> Iterator[None]:
    """Turns what the system says against a `deed` ("write", "read") into one clear line.

    Raises:
        InputError: no permission, no space, a file where a folder should be, ...
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # (safetensors wraps what the disk says)
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"cannot {deed} {path}: {why}; {remedy}.") from error


@contextlib.contextmanager
def regular(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a regular file to be read: others, as devices and pipes are, need have no end. Raises OSError."""
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file, but a device or pipe")
        yield file


def content(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file that has at most so many. Raises OSError, whose `strerror` says what is wrong."""
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        found = file.read(most + 1) if size <= most else b""  # (some systems' files have no size, but bytes)
        if size > most or len(found) > most:
            raise OSError(errno.EFBIG, f"it is longer than any such file ({most:,} bytes)")
        return found


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting for whoever writes into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def check_free(target: Path) -> None:
    """Raises InputError where `target` holds something, or cannot be replaced by what is made beside it."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already: name a folder that is empty, or not there yet.")
    if target.is_mount() or target.absolute() == Path.cwd():
        raise InputError(f"{target} is where you are, or where a disk begins: name a folder in it.")


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives a folder beside `target` to write into, which becomes `target` once the block ends well.

    A block that fails leaves nothing; what a killed one has left goes when the next one begins.

    Raises InputError where `check_free` says no, or the disk refuses.
    """
    check_free(target)
    with told("write", target, "free it, or name another folder"):
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.partial-{8 * '[0-9a-f]'}"):
            with _claimed(left) as is_ours:  # that of a living program stays
                if is_ours:
                    shutil.rmtree(left, ignore_errors=True)
        work = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
        work.mkdir()
        try:
            with _claimed(work):
                yield work
                sync_all(work)
                check_free(target)
                work.replace(target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether the folder is this program's as long as the block lasts; its death frees it."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # another's, or a network's disk that knows no locks
        free = False
    try:
        yield free
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in chunks. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Writes digests of all files in the folder, by which whoever takes them elsewhere can tell what was written.

    Raises OSError.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def beside(path: Path) -> Path:
    """A hidden name in the folder of `path` that nothing has, in which it can be made and then renamed.

    What is made by it takes the permissions that the person's umask gives, unlike what `tempfile` makes.
    """
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")


def sync_folder(path: Path) -> None:
    """Waits until the disk has the names of what lies in the folder: a power cut could take a new or changed one back.

    Raises OSError.
    """
    with contextlib.suppress(PermissionError):  # a folder that may be written, and not be listed
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a network's disk may know of no such thing
                raise
        finally:
            os.close(opened)


def sync_all(path: Path) -> None:
    """The same for everything in the folder, whatever it holds: files first, then the names of them. Raises OSError."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))


def save_arrays(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file with the permissions that any new file has; the library would give it to its owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(arrays, path, metadata=metadata)
    path.chmod(mode)
