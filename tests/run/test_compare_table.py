"""How a comparison is printed and written."""

import io

import numpy as np
import pytest
from rich.console import Console

from emsedit_jax.run import compare_table, storing
from emsedit_jax.run.workdir import Workdir
from tests.run import comparing
from tests.run.comparing import STRONG, SUMMARY, WEAK, compared, make, score


@pytest.fixture
def two(tmp_path):
    """A weak run and a strong one."""
    return comparing.two(tmp_path)


def shown(found, width=120):
    said = io.StringIO()
    compare_table.show(found, Console(file=said, width=width, color_system=None))
    return said.getvalue()


def test_the_tables_on_a_terminal(two):
    text = shown(compared(*two))
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in text.splitlines()]
    assert ["config", "weak", "strong"] in cells
    assert ["editor.lr", "1e-06", "0.5"] in cells
    assert ["score", "unedited", "weak", "strong"] in cells
    assert ["ES, %", "12.5 [12.5,12.5]", "25.0 [25.0,25.0]", "75.0 [75.0,75.0]"] in cells
    assert ["perplexity", "8 [8,8]", "10 [10,10]", "20 [20,20]"] in cells
    assert ["training, s", "-", "30", "30"] in cells
    assert ["peak memory, GB", "-", "2", "2"] in cells
    (row,) = [row for row in cells if row[:3] == ["ES", "better", "+50.0 [+50.0,+50.0]"]]
    assert row[3] == "12"
    assert "LS: unrelated facts" in text
    assert "whole facts are drawn" in " ".join(text.split())
    assert "note:" not in text


def test_names_that_a_terminal_or_markdown_would_obey(tmp_path):
    found = compared(make(tmp_path / "[red]a|_b_\x1b[2J", WEAK), make(tmp_path / "plain_name", STRONG))
    text = shown(found)
    assert "[red]a|_b_ [2J" in text
    assert "\x1b" not in text
    written = compare_table.markdown(found, "compare.png")
    assert "\\[red]a\\|\\_b\\_ [2J" in written
    assert "plain_name" in written


def test_what_a_run_has_no_number_for_is_a_dash(two, tmp_path):
    nothing = make(tmp_path / "runs/nothing", {"ES": score(np.nan), "LS": STRONG["LS"]})
    assert "null" in Workdir(nothing).scores.read_text()
    storing.write_json(
        Workdir(nothing).summary, SUMMARY | {"edits": None, "seconds": {"train": None}, "peak_rss_mb": None}
    )
    found = compared(two[0], nothing)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown(found).splitlines()]
    assert ["ES, %", "12.5 [12.5,12.5]", "25.0 [25.0,25.0]", "-"] in rows
    assert ["perplexity", "8 [8,8]", "10 [10,10]", "-"] in rows
    for words, cell in (("edits", "12"), ("training, s", "30"), ("editing, s", "6"), ("peak memory, GB", "2")):
        assert [words, "-", cell, "-"] in rows
    assert [one.score for one in found.differences] == ["LS"]
    assert found.notes == ("weak and nothing: ES not tested, with no items in common; perplexity are not in both.",)
    assert "| ES, % | 12.5 [12.5,12.5] | 25.0 [25.0,25.0] | - |" in compare_table.markdown(found, "compare.png")
