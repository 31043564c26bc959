import io

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from emsedit_jax.errors import InputError
from emsedit_jax.run import report

SUMMARY = {
    "scores": {
        "unedited": {"ES": 19.04, "GS": 20.0, "LS": 24.26},
        "edited": {"ES": 67.01, "GS": 64.5, "LS": float("nan")},
    },
    "edits": 100,
    "seconds": {"train": 30.0, "edit": 12.0, "score": 5.25, "compile": 9.0, "total": 61.5},
    "peak_rss_mb": 2048.0,
}
CURVE = {
    "edits": [10, 20, 30],
    "after_own": {"ES": [90, 85, 80], "GS": [80, 70, 60], "LS": [24, 23, 22]},
    "after_last": {"ES": [60, 70, 80], "GS": [50, 55, 60], "LS": [20, 21, 22]},
    "unedited": {"ES": [20, 18, 19], "GS": [20, 18, 19], "LS": [25, 24, 25]},
}


def printed(function, *args, width=100):
    said = io.StringIO()
    function(*args, Console(file=said, width=width, color_system=None))
    return said.getvalue()


def test_the_table_holds_scores_and_costs():
    text = printed(report.print_table, SUMMARY)
    unedited = next(line for line in text.splitlines() if "unedited" in line)
    edited = next(line for line in text.splitlines() if "after editing" in line)
    assert [part for part in unedited.split() if part[0].isdigit()] == ["19.0", "20.0", "24.3"]
    assert [part for part in edited.split() if part[0].isdigit()] == ["67.0", "64.5"]
    assert text.startswith("100 edits")
    assert "0.12 s per edit" in text
    assert "peak memory 2.00 GB" in text
    assert "total 61.5 s (train 30.0 s, edit 12.0 s, score 5.2 s, compile 9.0 s, rest 5.2 s)" in text


def test_further_scores_have_intervals_units_and_items():
    scores = {"unedited": {"ES": 1.0, "perplexity": 20.0}, "edited": {"ES": 2.0, "perplexity": 25.5, "LS.same": 66.66}}
    intervals = {row: {name: [value - 1, value + 1] for name, value in named.items()} for row, named in scores.items()}
    items = {row: dict.fromkeys(named, 7) for row, named in scores.items()}
    text = printed(report.print_table, SUMMARY | {"scores": scores, "intervals": intervals, "items": items}, width=160)
    row = next(line for line in text.splitlines() if "perplexity" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "perplexity", "20.00 (19.00 to 21.00)", "25.50 (24.50 to 26.50)", "7",
    ]  # fmt: skip
    row = next(line for line in text.splitlines() if "LS.same, %" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["-", "66.7 (65.7 to 67.7)", "7"]


def test_the_table_of_a_mere_scoring_has_no_seconds_per_edit():
    summary = SUMMARY | {"seconds": {"train": 0.0, "edit": 0.0, "score": 5.0, "compile": 0.0, "total": 6.0}}
    text = printed(report.print_table, summary)
    assert "per edit" not in text
    assert "total 6.0 s (score 5.0 s, rest 1.0 s)" in text


def test_examples_are_shown_as_said_and_in_one_line_each():
    example = report.Example("The capital of [bold]France[/] is", " Rome", " Paris.\nIt is", "")
    lines = printed(report.print_examples, [example]).splitlines()
    assert lines == ["", "The capital of [bold]France[/] is  -> Rome", "  before Paris. It is", "  after  (nothing)"]


def test_what_a_terminal_would_obey_is_not_shown():
    example = report.Example("a\x1b[2Jb", "c", "\x9b1md\x07", "ü\x00\u200d🙂\n")
    text = printed(report.print_examples, [example])
    assert text == "\na [2Jb  -> c\n  before 1md\n  after  ü \u200d🙂\n"


def test_the_curve_is_a_picture_with_the_three_colours(tmp_path):
    path = tmp_path / "curve.png"
    report.plot_curve(path, CURVE)
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    for color in report.COLORS.values():
        wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
        assert np.all(pixels == wanted, axis=-1).sum() > 100
    assert [found.name for found in tmp_path.iterdir()] == ["curve.png"]


def test_the_same_curve_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        report.plot_curve(tmp_path / name, CURVE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_curve_may_lack_lines_and_points(tmp_path):
    report.plot_curve(tmp_path / "curve.png", {"edits": [10], "after_own": {"ES": [50.0], "GS": [float("nan")]}})
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*curve\.png: no such file or directory"):
        report.plot_curve(tmp_path / "nowhere" / "curve.png", CURVE)
