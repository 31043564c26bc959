"""The README: two screens, and its Python example runs as it stands there."""

import pytest

from tests.aside import aside
from tests.pages import TEXTS, blocks, on_tiny
from tests.quick_compiles import quick_compiles

__all__ = ["aside", "quick_compiles"]
README = TEXTS["README.md"]
(EXAMPLE,) = (block.code for block in blocks(README) if block.lang == "python")


def test_it_is_two_screens():
    assert len(README.splitlines()) <= 110
    assert len(EXAMPLE.splitlines()) <= 12


def test_the_python_example_runs_with_any_model(capsys, aside):
    names: dict = {}
    exec(compile(on_tiny(EXAMPLE), "README.md", "exec"), names)
    assert "The author of Hamlet is  -> Jane Austen" in capsys.readouterr().out
    assert names["session"].facts == []


@pytest.mark.long
def test_the_python_example_changes_a_real_model(capsys, aside):
    exec(compile(EXAMPLE, "README.md", "exec"), {})
    report, edited, unedited = capsys.readouterr().out.rpartition("\n Lyon")
    assert "The capital of France is  -> Lyon" in report
    assert edited
    assert "Paris" in unedited
