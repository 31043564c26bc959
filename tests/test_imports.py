"""Rooms import one way only, and what answers a mistake in a flag loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "emsedit_jax"
BASE = frozenset({"errors", "types"})
DEVICES = BASE | {"sharding"}
MAY_IMPORT = {  # room -> the rooms it may import besides itself
    "": frozenset({"errors", "lm", "session"}),  # the package itself: its doors, opened when asked for
    "errors": frozenset(),
    "types": frozenset({"errors"}),
    "disk": frozenset({"errors"}),
    "sharding": BASE,
    "data": BASE | {"disk"},
    "lm": DEVICES | {"disk"},
    "edit": DEVICES | {"lm"},
    "measure": DEVICES | {"lm", "data", "edit"},
    "meta": DEVICES | {"lm", "edit"},
    "run": DEVICES | {"disk", "lm", "data", "edit", "measure", "meta"},
    "session": DEVICES | {"disk", "lm", "data", "edit", "measure", "meta", "run"},
    "harness": DEVICES | {"lm", "data", "measure", "run"},
}


def imported(source: str) -> set[str]:
    """Full names of the modules that a source imports, at the top or inside functions; relative ones begin with "."."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def rooms(source: str) -> set[str]:
    """The package's rooms that a source imports."""
    parts = [name.split(".") for name in imported(source)]
    return {part[1] if len(part) > 1 else "" for part in parts if part[0] == "emsedit_jax"}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_imports_are_found_wherever_they_stand():
    source = "import os\nfrom emsedit_jax import lm, run\ndef f():\n    import emsedit_jax.edit.solve as s\n"
    assert rooms(source) == {"lm", "run", "edit"}
    assert imported("from .solve import ridge") == {".solve.ridge"}


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_rooms_import_one_way(path):
    source, room = path.read_text(encoding="utf-8"), room_of(path)
    assert room in MAY_IMPORT, "a new room: say in MAY_IMPORT what it may import"
    assert rooms(source) <= MAY_IMPORT[room] | {room}
    assert not any(name.startswith((".", "launch", "tests")) for name in imported(source))


@pytest.mark.parametrize("module", ["emsedit_jax", "emsedit_jax.run.cli"])
def test_nothing_heavy_is_imported_to_read_flags(module):
    heavy = ("jax", "flax", "optax", "transformers", "matplotlib", "datasets", "tensorboardX")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
