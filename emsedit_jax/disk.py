"""What a disk refuses, told in one line, and names for files and folders that are not whole yet."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

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


def beside(path: Path) -> Path:
    """A hidden name in the folder of `path` that nothing has, in which it can be made and then renamed.

    What is made by it takes the permissions that the person's umask gives, unlike what `tempfile` makes.
    """
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")


def save_arrays(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file with the permissions that any new file has; the library would give it to its owner alone."""
    path.touch()
    mode = path.stat().st_mode
    save_file(arrays, path, metadata=metadata)
    path.chmod(mode)
