"""Runs side by side, from folders written here by hand."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from configs import common
from emsedit_jax.measure.scores import Score
from emsedit_jax.run import compare, compare_plot, compare_runs, compare_table, items, workdir
from emsedit_jax.run.workdir import Workdir
from tests.refusals import refused
from tests.run import tiny

ROOT = Path(__file__).parents[2]
N = 12
ROWS = tuple(f"mine.json row {m}" for m in range(N))
SWING = np.array([0.0, 1.0] * (N // 2))
SUMMARY = {"edits": N, "editor": "emsedit", "seed": 0, "seconds": {"train": 30.0, "edit": 6.0}, "peak_rss_mb": 2048.0}


def score(values, names=ROWS):
    return Score(np.broadcast_to(np.asarray(values, np.float64), len(names)).copy(), tuple(names))


UNEDITED = {"ES": score(0.125), "LS": score(SWING), "perplexity": score(math.log(8), ["window 0", "window 1"])}
WEAK = {"ES": score(0.25), "LS": score(SWING), "perplexity": score(math.log(10), ["window 0", "window 1"])}
STRONG = {"ES": score(0.75), "LS": score(1 - SWING), "perplexity": score(math.log(20), ["window 0", "window 1"])}


def make(folder, edited, unedited=UNEDITED, **changes):
    """A finished run's folder; `changes` of its config, with __ for the dot."""
    config = common.get_config()
    for name, value in changes.items():
        group, _, field = name.rpartition("__")
        config[group][field] = value
    opened = workdir.open_workdir(folder, config)
    items.write(opened.scores, {"unedited": unedited, "edited": edited})
    workdir.write_json(opened.summary, SUMMARY)
    return folder


@pytest.fixture
def two(tmp_path):
    """A weak run and a strong one."""
    weak = make(tmp_path / "runs/weak", WEAK, editor__lr=1e-6)
    return weak, make(tmp_path / "runs/strong", STRONG, editor__lr=0.5)


def compared(*folders):
    return compare_runs.compare(compare.load(folders))


def by_score(found):
    return {one.score: one for one in found.differences}


def shown(found, width=120):
    said = io.StringIO()
    compare_table.show(found, Console(file=said, width=width, color_system=None))
    return said.getvalue()


# ------------------------------------------------------------------------------------------ numbers


def test_scores_stand_beside_each_other_with_the_unedited_model_first(two):
    found = compared(*two)
    assert [(one.run, one.edited) for one in found.columns] == [(None, False), ("weak", True), ("strong", True)]
    totals = [{name: cell.total for name, cell in one.cells.items()} for one in found.columns]
    for total, wanted in zip(totals, ((12.5, 50, 8), (25, 50, 10), (75, 50, 20)), strict=True):
        assert [total[name] for name in ("ES", "LS", "perplexity")] == pytest.approx(wanted)
    swinging = found.columns[1].cells["LS"]
    assert (found.columns[1].cells["ES"].low, found.columns[1].cells["ES"].high) == (25, 25)
    assert 15 < swinging.low < 35 < 65 < swinging.high < 85
    assert swinging.items == N
    assert found.settings == {"editor.lr": (1e-6, 0.5)}
    assert found.notes == ()


def test_what_moves_in_every_item_is_a_difference_and_what_swings_is_none(two):
    found = by_score(compared(*two))
    moved, swung, worse = found["ES"], found["LS"], found["perplexity"]
    assert (moved.difference, moved.low, moved.high) == (50, 50, 50)
    assert moved.p == pytest.approx(2 / 2**N, abs=6e-4)
    assert moved.p_holm == pytest.approx(3 * moved.p)
    assert (moved.verdict, moved.items, moved.run) == ("better", N, "strong")
    assert (swung.difference, swung.p, swung.p_holm, swung.verdict) == (0, 1, 1, "")
    assert swung.low < -30 < 30 < swung.high
    assert worse.difference == pytest.approx(10)
    assert worse.p == pytest.approx(0.5, abs=0.05)  # of two items
    assert worse.verdict == ""


def test_less_may_be_better_and_some_is_neither(two, tmp_path):
    before, after = ({name: score(value) for name in ("LS.kl", "ES", "fluency")} for value in (0.5, 0.25))
    found = by_score(compared(make(tmp_path / "before", before, {}), make(tmp_path / "after", after, {})))
    assert {name: one.verdict for name, one in found.items()} == {"LS.kl": "better", "ES": "worse", "fluency": "other"}


def test_only_items_that_both_have_a_number_for_are_held_to_each_other(tmp_path):
    first = make(tmp_path / "a", {"ES": score([0.0, 0.1, 0.2, 0.3, math.nan], ["r0", "r1", "r1", "r2", "r3"])}, {})
    other = make(tmp_path / "b", {"ES": score([0.9, 0.8, 0.6, 0.5, 0.4], ["r9", "r3", "r2", "r1", "r1"])}, {})
    found = compared(first, other)
    (one,) = found.differences
    assert one.items == 3
    assert one.difference == pytest.approx(100 * np.mean([0.5 - 0.1, 0.4 - 0.2, 0.6 - 0.3]))
    assert found.notes == ("a and b: ES (3 of 5 and 5) have but some in common.",)


def test_totals_that_are_no_means(tmp_path):
    said = SWING.copy()
    said[1] = 0
    before, after = ({"rte.f1": Score(np.stack([SWING, each], 1), ROWS)} for each in (said, SWING))
    (one,) = compared(make(tmp_path / "a", before, {}), make(tmp_path / "b", after, {})).differences
    assert one.difference == pytest.approx(100 - 100 * (12 / 13 + 10 / 11) / 2)
    assert 0 == one.low < one.difference < one.high < 30
    assert (one.p, one.verdict) == (1, "")  # the one item that moves moves as far when it is swapped


def test_holms_correction():
    assert compare_runs.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert compare_runs.holm([0.5, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert compare_runs.holm([]) == []


def test_more_runs_are_more_tests(two, tmp_path):
    alone = by_score(compared(*two))["ES"]
    third = make(tmp_path / "third", WEAK)
    found = compared(*two, third)
    assert [one.run for one in found.differences] == ["strong"] * 3 + ["third"] * 3
    assert by_score(compared(*two))["ES"].p == alone.p
    assert found.differences[0].p_holm == pytest.approx(6 * alone.p)
    assert {one.p for one in found.differences[3:]} == {1.0}


def test_runs_that_do_not_agree_on_the_unedited_model_show_each_its_own(tmp_path, two):
    other = make(tmp_path / "other", STRONG, UNEDITED | {"ES": score(0.5)})
    found = compared(two[0], other)
    assert [compare_table.heading(one) for one in found.columns] == [
        "weak, unedited", "weak", "other, unedited", "other"
    ]  # fmt: skip
    assert "weak and other found other scores of the unedited model on the same items (ES)" in found.notes[0]
    rounded = make(tmp_path / "rounded", STRONG, UNEDITED | {"ES": score(0.125 + 1e-8)})
    assert compared(two[0], rounded).columns[0].run is None


def test_without_scores_of_the_unedited_model_there_is_no_column_for_it(tmp_path):
    found = compared(make(tmp_path / "a", WEAK, {}), make(tmp_path / "b", STRONG, {}))
    assert [one.run for one in found.columns] == ["a", "b"]
    found = compared(make(tmp_path / "c", WEAK, {}), make(tmp_path / "d", STRONG))
    assert [one.run for one in found.columns] == [None, "c", "d"]


def test_what_was_asked_otherwise_is_not_tested(tmp_path, two):
    spoken = {"ES.exact": score(0.5), "fluency": score(3.0)}
    first = make(tmp_path / "first", WEAK | spoken)
    longer = make(tmp_path / "longer", STRONG | spoken, eval__max_new_tokens=40, eval__text_path="other.txt")
    found = compared(first, longer)
    assert set(by_score(found)) == {"ES", "LS", "fluency"}
    asked = "perplexity (eval.text_path), ES.exact (eval.max_new_tokens) were asked otherwise"
    assert found.notes == (f"first and longer: {asked}.",)
    (note,) = compared(two[0], first).notes
    assert note == "weak and first: ES.exact, fluency are not in both."


# ------------------------------------------------------------------------------------------ folders


def test_runs_of_other_facts_are_refused(tmp_path, two):
    elsewhere = make(
        tmp_path / "elsewhere", {"ES": score(0.5, [f"other.json row {m}" for m in range(N)])}, {},
        dataset__valid_path="other.json",
    )  # fmt: skip
    with refused("weak and", "have no items in common", "config.dataset.valid_path:  and other.json", "same facts"):
        compared(two[0], elsewhere)
    same_names = make(tmp_path / "same", {"ES": score(0.5)}, {}, dataset__name="counterfact")
    with refused("have no items in common (config.dataset.name: worldfacts and counterfact)"):
        compared(two[0], same_names)


def harmed(two, harm):
    harm(Workdir(two[1]))
    return compare.load(two)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: run.path.rename(run.path.with_name("strongest")), "there is no such folder. Did you mean"),
        (lambda run: run.config.unlink(), "holds no run (no config.json)"),
        (lambda run: run.summary.unlink(), "is not finished (no summary.json)"),
        (lambda run: run.scores.unlink(), "a run of an earlier version, without scores item by item"),
        (lambda run: run.scores.write_text("{}"), "holds no scores of the edited model"),
        (lambda run: run.scores.write_text("{"), "cannot read"),
        (lambda run: run.summary.write_text("{"), "cannot read"),
        (lambda run: run.summary.write_text("[]"), "holds no summary"),
        (lambda run: run.config.write_text("{"), "config.json"),
    ],
)
def test_folders_that_cannot_be_compared(two, harm, said):
    with refused(str(two[1]), said):
        harmed(two, harm)


def test_a_run_is_not_compared_with_itself(two, monkeypatch):
    monkeypatch.chdir(two[0].parent)
    with refused("--workdir names weak twice"):
        compare.load([two[0], Path("weak")])


def test_folders_of_one_name_are_told_apart(tmp_path):
    folders = [make(tmp_path / name, WEAK) for name in ("x/a/run", "x/b/run", "y/b/run", "alone")]
    assert [run.name for run in compare.load(folders)] == ["a/run", "x/b/run", "y/b/run", "alone"]


# ------------------------------------------------------------------------------------------ what is shown


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
    assert "note:" not in text


def test_names_that_a_terminal_or_markdown_would_obey(tmp_path):
    found = compared(make(tmp_path / "[red]a|_b_\x1b[2J", WEAK), make(tmp_path / "plain_name", STRONG))
    text = shown(found)
    assert "[red]a|_b_ [2J" in text
    assert "\x1b" not in text
    written = compare_table.markdown(found, "compare.png")
    assert "\\[red]a\\|\\_b\\_ [2J" in written
    assert "plain_name" in written


def test_names_that_matplotlib_would_obey(tmp_path):
    runs = [make(tmp_path / name, WEAK) for name in ("_hidden", "$\\nosuch$", "a\x07")]
    compare_plot.plot(tmp_path / "compare.png", compared(*runs))
    assert imread(tmp_path / "compare.png").std() > 0.05


def test_the_picture_has_a_colour_for_each_model(two, tmp_path):
    compare_plot.plot(tmp_path / "compare.png", compared(*two))
    pixels = (imread(tmp_path / "compare.png")[..., :3] * 255).round().astype(int)
    for color in compare_plot.COLORS[:2]:
        wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
        assert np.all(pixels == wanted, axis=-1).sum() > 100
    unused = [int(compare_plot.COLORS[2][place : place + 2], 16) for place in (1, 3, 5)]
    assert not np.all(pixels == unused, axis=-1).any()
    assert [found.name for found in tmp_path.glob("*.png")] == ["compare.png"]


def test_many_scores_go_into_two_columns(tmp_path, two):
    looks = ("first", "exact", "kl", "margin")
    many = {f"{kind}.{look}": score(SWING) for kind in ("ES", "GS", "LS") for look in looks}
    runs = [make(tmp_path / name, WEAK | many | {"rte.accuracy": score(math.nan)}) for name in "abc"]
    compare_plot.plot(tmp_path / "few.png", compared(*two))
    compare_plot.plot(tmp_path / "many.png", compared(*runs))
    widths = [imread(tmp_path / name).shape[1] for name in ("few.png", "many.png")]
    assert widths == [round(140 * compare_plot.WIDTH), round(280 * compare_plot.WIDTH)]


# ------------------------------------------------------------------------------------------ the command


def test_the_command_writes_its_files(two, tmp_path, capsys):
    target = tmp_path / "side by side"
    assert tiny.call("--mode=compare", f"--workdir={two[0]},{two[1]}", f"--to={target}") == 0
    said = capsys.readouterr().out
    assert "devices" not in said
    assert said.endswith(f"files in {target}\n")
    assert sorted(found.name for found in target.iterdir()) == ["compare.json", "compare.md", "compare.png"]

    written = tiny.read(target / "compare.json")
    assert [run["name"] for run in written["runs"]] == ["weak", "strong"]
    assert [run["workdir"] for run in written["runs"]] == [str(folder) for folder in two]
    assert written["settings"] == {"editor.lr": [1e-6, 0.5]}
    assert [one["run"] for one in written["models"]] == [None, "weak", "strong"]
    assert written["models"][2]["scores"]["ES"] == {"total": 75.0, "low": 75.0, "high": 75.0, "items": N}
    assert written["scores"]["perplexity"] == {"words": "perplexity of running text", "unit": "", "better": -1}
    first = written["differences"][0]
    assert (written["against"], first["run"], first["score"], first["verdict"]) == ("weak", "strong", "ES", "better")
    assert first["p_holm"] == pytest.approx(3 * first["p"])

    text = (target / "compare.md").read_text(encoding="utf-8")
    assert text.startswith("# weak / strong\n")
    for line in (
        "| editor.lr | 1e-06 | 0.5 |",
        "| score | unedited | weak | strong |",
        "| --- | ---: | ---: | ---: |",
        "| **answer tokens right** |  |  |  |",
        "| ES, % | 12.5 [12.5,12.5] | 25.0 [25.0,25.0] | 75.0 [75.0,75.0] |",
        "| **strong less weak** |  |  |  |  |  |",
        "| LS |  | +0.0 [-50.0,+50.0] | 12 | 1.000 | 1.000 |",
        "- ES: edited prompts",
        "![scores with their intervals](compare.png)",
    ):
        assert line in text.splitlines()


def test_the_command_refuses_in_one_line_and_writes_nothing(two, tmp_path, capsys):
    target = tmp_path / "there"
    assert tiny.call("--mode=compare", f"--workdir={two[0]},{two[0]}x", f"--to={target}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not target.exists()
    target.mkdir()
    (target / "mine").touch()
    assert tiny.call("--mode=compare", f"--workdir={two[0]},{two[1]}", f"--to={target}") == 2
    assert "is there already" in capsys.readouterr().err
    assert [found.name for found in target.iterdir()] == ["mine"]


def test_a_comparison_loads_no_jax(two, tmp_path):
    args = ["launch.py", "--mode=compare", f"--workdir={two[0]},{two[1]}", f"--to={tmp_path / 'there'}"]
    code = (
        f"import sys; sys.argv = {json.dumps(args)}; import launch\n"
        "code = launch.cli.exit_code(launch.main, sys.argv)\n"
        "print(code, [name for name in ('jax', 'flax', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 []", "")
