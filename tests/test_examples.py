"""The notebook runs from top to bottom, and is kept without what it printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.run import tiny

NOTEBOOK = tiny.ROOT / "examples/own_facts.ipynb"


@pytest.fixture
def apart(monkeypatch, tmp_path) -> None:
    """A kernel of its own: it finds this repository's package, and writes into this folder alone."""
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
        (tmp_path / name.lower()).mkdir()


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def run(folder: Path) -> str:
    """What all its cells show, in plain text and in tables."""
    notebook = read()
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    data = [output.get("data", {}) for output in outputs]
    return "\n".join(output.get("text", "") for output in outputs) + "".join(
        text for one in data for text in one.values()
    )


def test_it_is_kept_without_outputs():
    nbformat.validate(read())
    for cell in read().cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.filterwarnings("ignore")  # of the notebook's machinery
def test_it_runs_with_any_model(apart, tmp_path, monkeypatch):
    monkeypatch.setenv("EMSEDIT_EXAMPLE_MODEL", str(tiny.MODEL))
    monkeypatch.setenv("EMSEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    said = run(tmp_path)
    assert "<td>The capital of France is</td>" in said
    assert "['Lyon', 'Rome'] []" in said
    assert "2 facts in 1 batches" in said
    assert "\nTrue\n" in said


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_it_runs_with_the_real_model(apart, tmp_path):
    said = run(tmp_path)
    assert "after  ' Lyon" in said
    assert "after  ' Rome" in said
