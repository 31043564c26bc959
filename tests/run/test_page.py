"""A run's page, report.html: what is in it, that it loads nothing, and that texts from strangers stay texts."""

import html
import itertools
import json
import math
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import cli, main, page, page_costs, page_scores, storing, workdir
from emsedit_jax.run.metrics import Metrics
from emsedit_jax.run.workdir import Workdir
from tests.run import tiny
from tests.run.pages import Outline, made, score, text_of

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


# ---------------------------------------------------------------------------------------------- a whole run


@pytest.fixture
def outline(finished):
    return Outline(text_of(finished))


def test_a_finished_run_has_a_page_with_all_parts(finished, outline):
    summary = tiny.read(finished / "summary.json")
    titles = ["scores", "sequence", "words", "failures", "costs", "shifts", "run"]
    assert [given["id"] for tag, given in outline.tags if tag == "h2"] == titles
    for name, value in summary["scores"]["edited"].items():
        low, high = summary["intervals"]["edited"][name]
        assert f"{value:.1f} %" in outline.text
        assert f"({low:.1f} to {high:.1f})" in outline.text
    compiled = ("compiling",) * bool(summary["seconds"]["compile"])  # not after runs like it in the same process
    for words in ("training", "editing", "scoring", *compiled, "seed", "versions", "3.gate_proj", "4.gate_proj"):
        assert words in outline.texts
    for example in summary["examples"]:
        assert example["prompt"] in outline.texts
        assert example["target"] in outline.texts
    assert all(digest in outline.texts for digest in summary["digests"].values())


def test_headings_tables_and_pictures_are_marked_up(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert outline.count("caption") == outline.count("table") > 3
    assert all("scope" in given for tag, given in outline.tags if tag == "th")
    pictures = [given for tag, given in outline.tags if tag == "svg" and "aria-hidden" not in given]
    assert len(pictures) == outline.count("title") - 1
    assert all(given["role"] == "img" and given["aria-label"] for given in pictures)
    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)


def test_a_page_loads_nothing(finished, outline):
    text = text_of(finished)
    assert all(link.startswith("#") or link == "data:," for link in outline.links)
    assert not re.search(r"https?://|@import|<script|<iframe|<object|<embed|javascript:", text)
    assert not any(name.startswith("on") for _, given in outline.tags for name in given)
    assert all(name.startswith("#") for name in re.findall(r"url\(([^)]*)", text))
    assert "default-src 'none'" in text


def test_the_same_files_give_the_same_bytes_without_jax(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "elsewhere")
    (copy / "report.html").unlink()
    args = ["launch.py", "--mode=report", f"--workdir={copy}"]
    code = (
        f"import sys; sys.argv = {json.dumps(args)}; import launch\n"
        "code = launch.cli.exit_code(launch.main, sys.argv)\n"
        "print(code, [name for name in ('jax', 'flax', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 []", "")
    assert done.stdout.splitlines()[0] == f"report in {copy / 'report.html'}"
    assert (copy / "report.html").read_bytes() == (finished / "report.html").read_bytes()


def test_the_command_in_it_makes_the_same_config(finished, monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    told = page_costs.command(page.read(Workdir(finished)).config)
    assert html.escape(told, quote=False) in text_of(finished).replace("&#39;", "'").replace("&#34;", '"')
    _, *args = shlex.split(told.replace("\\\n", ""))
    assert cli.read(args).config.to_dict() == tiny.command().config.to_dict()


def test_a_curve_is_what_the_run_drew(finished):
    rows = [row for row in tiny.rows(finished) if row["phase"] == "edit"]
    drawn = page_scores.curve(page.read(Workdir(finished)))
    assert drawn["edits"] == [4, 8]
    for name in ("ES", "GS", "LS"):
        assert drawn["after_own"][name] == [row[name] for row in rows]
        total = tiny.read(finished / "summary.json")["scores"]["edited"][name]
        assert math.isclose(sum(drawn["after_last"][name]) / 2, total)


# ---------------------------------------------------------------------------------------------- strangers' texts


def hostile():
    """A summary in which every text that comes from somebody else is an attack."""
    example = {"prompt": HOSTILE, "target": HOSTILE, "before": HOSTILE, "after": f"\x1b[2J\x00 {HOSTILE}\u202e"}
    failure = {"item": HOSTILE, "prompt": HOSTILE, "answer": HOSTILE, "said": HOSTILE, "times": 2}
    return {
        "scores": {"edited": {"ES": 50.0}},
        "edits": 1,
        "examples": [example],
        "failures": {"ES": [failure]},
        "device": {"platform": HOSTILE, "kind": HOSTILE, "count": 1},
        "digests": {HOSTILE: HOSTILE},
    }


def test_texts_of_strangers_stay_texts(tmp_path):
    scores = {"edited": {"ES": score(0.5, names=[HOSTILE])}}
    rows = [{"phase": "edit", "batch": 0, "shift_norm": [{HOSTILE: 1.5}]}]
    text = made(tmp_path, hostile(), scores, rows, **{"model.name_or_path": HOSTILE})
    outline = Outline(text)
    assert outline.count("script") == outline.count("img") == 0
    assert not any(name.startswith("on") for _, given in outline.tags for name in given)
    assert outline.text.count(HOSTILE) >= 10
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_half_a_letter_does_not_lose_the_page(tmp_path):
    example = {"prompt": "a\ud800b", "target": "c", "before": "d", "after": "e"}
    found = page.Found({}, {"scores": {}, "examples": [example]}, {}, (), (), ())
    assert "a b" in page.rendered(found)


# ---------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", ["scores.json", "metrics.jsonl", "edits", "curve.png"])
def test_a_run_without_a_piece_has_a_page_without_it(finished, tmp_path, name):
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    page.write(Workdir(folder))
    outline = Outline(text_of(folder))
    headings = {given.get("id") for tag, given in outline.tags if tag == "h2"}
    gone = {"scores.json": {"failures"}, "metrics.jsonl": {"shifts"}}
    assert headings == {"scores", "sequence", "words", "failures", "costs", "shifts", "run"} - gone.get(name, set())
    assert ("no scores item by item" in outline.text) == (name == "scores.json")


def test_a_run_that_was_broken_off_has_a_page_of_what_is_there(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    for name in ("summary.json", "scores.json", "curve.png"):
        (folder / name).unlink()
    lines = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(lines[:-20])  # the last line is cut off
    page.write(Workdir(folder))
    outline = Outline(text_of(folder))
    assert [given["id"] for tag, given in outline.tags if tag == "h2"] == ["shifts", "run"]
    assert "The run is not finished" in outline.text
    assert "over 1 batch." in outline.text


def test_an_earlier_versions_summary_is_told(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    summary = tiny.read(folder / "summary.json")
    del summary["sha256"]
    (folder / "summary.json").write_text(json.dumps(summary))
    page.write(Workdir(folder))
    assert "summary.json is damaged, or of an earlier version" in text_of(folder)


def test_the_least_that_a_run_leaves(tmp_path):
    outline = Outline(made(tmp_path))
    assert [given["id"] for tag, given in outline.tags if tag == "h2"] == ["run"]
    scores = {"edited": {"ES": None, "ES.of_another_version": 1.0, "of another version": 1.0}}
    least = Outline(made(tmp_path / "finished", {"scores": scores, "edits": 8}))
    assert "8 facts edited into llama" in least.text


@pytest.mark.parametrize(
    "line",
    [
        "[]", "{", "", "\x00", "[" * 9999, '{"phase": "edit", "batch": 0}', '{"phase": "edit", "batch": 0, "seal": ""}',
    ],
)  # fmt: skip
def test_lines_that_are_no_rows_of_ours_are_left_out(tmp_path, line):
    opened = workdir.open_workdir(tmp_path, tiny.command().config)
    opened.metrics.write_text(f"{line}\n")
    page.write(opened)
    outline = Outline(text_of(tmp_path))
    assert outline.count("h1") == 1
    assert "metrics.jsonl is damaged, or of an earlier version" in outline.text


@pytest.mark.parametrize(
    "row",
    [
        {"phase": "edit"}, {"phase": "edit", "batch": 999999999999}, {"phase": "edit", "batch": "0"},
        {"phase": "edit", "batch": 0, "ES": "x", "shift_norm": 3},
        {"phase": "edit", "batch": 0, "shift_norm": [3, {"a": "b", "c": None, "e": -2}]},
    ],
)  # fmt: skip
def test_odd_rows_among_the_metrics_do_no_harm(tmp_path, row):
    assert Outline(made(tmp_path, rows=[row])).count("h1") == 1


def test_metrics_that_end_too_early_are_told(tmp_path):
    rows = [{"phase": "edit", "batch": j, "shift_norm": [{"a": 1.5}]} for j in range(3)]
    made(tmp_path, rows=rows)
    seal = Metrics(tmp_path / "metrics.jsonl").seal
    storing.write_json(tmp_path / "summary.json", {"scores": {}, "edits": 8, "metrics_seal": seal})
    page.write(Workdir(tmp_path))
    assert "metrics.jsonl is damaged" not in text_of(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
    page.write(Workdir(tmp_path))
    assert "metrics.jsonl is damaged" in text_of(tmp_path)


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "nowhere"):
        assert tiny.call("--mode=report", f"--workdir={path}") == cli.BAD_INPUT
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "holds no run (no config.json)" in said
    assert list(tmp_path.iterdir()) == []
    opened = workdir.open_workdir(tmp_path / "merged", tiny.command().config)
    storing.write_json(opened.made_of, {"like": "that"})
    with pytest.raises(InputError, match="merged or made into one"):
        page.write(opened)


def test_a_page_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise InputError("cannot write report.html: no space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(main.page, "write", full)
        tiny.train(tmp_path / "run", editor="ultraedit")
    said = capsys.readouterr().out
    assert "no space left on device. --mode=report writes it later." in said
    assert said.splitlines()[-1].startswith("files in")
    assert not (tmp_path / "run/report.html").exists()
    before = sorted(tiny.files(tmp_path / "run"))
    (tmp_path / "run/.report-ab12cd34.html").touch()  # as a run leaves it that dies as it writes the page
    tiny.train(tmp_path / "run", editor="ultraedit")  # the finished run is shown again
    assert "editor: ultraedit" in Outline(text_of(tmp_path / "run")).text
    assert sorted(tiny.files(tmp_path / "run")) == sorted([*before, "report.html"])
