"""Inputs for the readers of `strangers.py` that atheris finds by the branches that they reach, kind by kind.

    pip install -e '.[test,fuzz]' && python -m tests.faults.coverage_guided [--inputs=10000] [KIND ...]

The good file is what it starts from. An input that ends in anything but an InputError stops the program, which then
names the folder that holds it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LONGEST = 4096  # bytes of an input, where the good file is no longer
SLOWEST = 600  # seconds for one input


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("kinds", nargs="*", metavar="KIND", help="all by default")
    flags.add_argument("--inputs", type=int, default=10_000, help="of each kind")
    flags.add_argument("--alone", type=Path, help=argparse.SUPPRESS)  # the folder of one of the processes below
    given = flags.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("atheris is not installed: pip install -e '.[fuzz]'")
    if given.alone:
        search(given.kinds[0], given.inputs, given.alone)
    from tests.faults.strangers import READERS

    if unknown := sorted(set(given.kinds) - READERS.keys()):
        flags.error(f"unknown {', '.join(unknown)}; known: {', '.join(READERS)}")
    for kind in given.kinds or READERS:
        try_kind(kind, given.inputs)


def try_kind(kind: str, inputs: int) -> None:
    """In a process of its own, as libFuzzer ends the one that it runs in."""
    start, folder = time.perf_counter(), tempfile.mkdtemp(prefix="emsedit-fuzz-")
    command = [sys.executable, "-m", "tests.faults.coverage_guided", f"--alone={folder}", f"--inputs={inputs}", kind]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        sys.exit(f"{kind}: an input, kept in {folder}/found, was not refused by name\n{done.stderr[-4000:]}")
    shutil.rmtree(folder)
    print(f"{kind}: {inputs} inputs in {time.perf_counter() - start:.0f} s", flush=True)


def search(kind: str, inputs: int, folder: Path) -> None:
    """Does not come back: the process ends with 0, or with another code where an input was not refused by name."""
    import atheris

    with atheris.instrument_imports(include=["emsedit_jax", "gguf"]):
        from tests.faults.strangers import READERS, refused_or_read

    for name in ("start", "files", "found"):
        (folder / name).mkdir()
    reader = READERS[kind](folder / "files")
    (folder / "start" / "good").write_bytes(reader.good)
    options = {"atheris_runs": inputs, "max_len": max(LONGEST, len(reader.good)), "len_control": 0, "seed": 1}
    options |= {"artifact_prefix": f"{folder / 'found'}{os.sep}", "timeout": SLOWEST, "rss_limit_mb": 0}
    flags = [f"-{name}={value}" for name, value in options.items()]

    def one(content: bytes) -> None:
        refused_or_read(reader.read, content)

    atheris.Setup([sys.argv[0], *flags, str(folder / "start")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
