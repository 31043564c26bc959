"""The parts of a run's page: failures, curves, pictures, costs."""

import json
import math
import re
import shutil

from emsedit_jax.run import page, page_costs, page_failures, page_figures, page_scores, storing
from emsedit_jax.run.ledger_lines import NAME
from emsedit_jax.run.workdir import Workdir
from tests.run import tiny
from tests.run.pages import Outline, made, score, text_of


def test_differences_are_marked_word_by_word():
    before, after = page_failures.marked("The capital of Peru is Lima.", "The capital of Peru is now Quito.")
    assert before == [("same", "The capital of Peru is"), ("del", "Lima.")]
    assert after == [("same", "The capital of Peru is"), ("ins", "now Quito.")]
    assert page_failures.marked("", "new") == ([], [("ins", "new")])


def test_failures_are_told_with_their_prompts(tmp_path):
    edited = {"ES": score(1, 0, 0.5), "GS": score(0.25, 0, 1), "LS": score(0, 1, 0)}
    scores = {"unedited": {"ES": score(0, 0, 0), "LS": score(1, 1, 0.5)}, "edited": edited}
    told = [{"item": "mine.json row 1", "prompt": "Who?", "answer": "I", "said": "You", "times": 3}]
    text = Outline(made(tmp_path, {"scores": {}, "failures": {"ES": told}}, scores)).text
    assert "Facts that did not take: 2 of 3" in text
    assert "Who? wanted I said You tokens 0 % right before, 0 % after" in text
    assert "failed for 2 other facts too" in text
    assert "Wordings that do not follow: 1 of 1" in text
    assert "Unrelated facts that broke: 1 of 2" in text
    assert "mine.json row 2" not in text  # of those that did not take, the summary tells the others' texts


def test_an_earlier_runs_prompts_come_from_its_ledger(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    summary = storing.read_json(folder / "summary.json", "")
    facts = json.loads((tiny.DATA / "zsre_eval.json").read_text())[:8]
    failed = [one["item"] for one in summary.pop("failures")["ES"]]
    assert failed
    storing.write_json(folder / "summary.json", summary)
    page.write(Workdir(folder))
    texts = Outline(text_of(folder)).texts
    assert all(facts[int(item.rpartition(" ")[2])]["src"] in texts for item in failed)
    (folder / "edits" / NAME).unlink()
    page.write(Workdir(folder))
    assert failed[0] in Outline(text_of(folder)).texts


def test_prompts_of_a_batch_are_those_of_its_facts():
    names = ["a #0", "a #1", "b", "c", "d #0"]
    scores = {"ES": score(1, 0, 1, 1, names="abcd"), "GS": score(1, 0, 0.5, 0, 1, names=names)}
    found = page_scores.by_batch(scores, 2)
    assert found == {"ES": [50.0, 100.0], "GS": [50.0, 50.0]}


def test_pictures_take_the_pages_colours_and_have_their_own_names():
    curve = {"edits": [1, 2], "after_own": {"ES": [50.0, 60.0], "GS": [math.nan, 1.0]}}
    found = page_figures.curve_panels(curve)
    assert list(found) == ["ES", "GS"]
    assert page_figures.curve_panels(curve) == found
    for name, picture in found.items():
        assert f"var(--{name.lower()})" in picture
        assert "currentColor" in picture
        assert not re.search(r"#[0-9a-f]{6}|font-family|<metadata|<style|DOCTYPE", picture)
        assert all(one.startswith(f"curve-{name.lower()}-") for one in re.findall(r'\bid="([^"]*)"', picture))
    assert "50 % at first, 60 % at last" in found["ES"]
    assert "1 % at first, 1 % at last" in found["GS"]


def test_a_strip_is_shaded_by_its_values():
    shades = [float(value) for value in re.findall(r'fill-opacity="([^"]*)"', page_figures.strip([1, 2, 4], 4, "x"))]
    assert shades == [0.25, 0.5, 1.0]
    assert page_figures.averaged(range(120)) == [0.5 + 2 * m for m in range(60)]
    assert len(page_figures.averaged([1.0] * 61)) == 31


def test_norms_of_a_batch_are_its_steps_added_up():
    assert page_costs.batch_norms([{"a": 1.0, "b": 2}, {"a": 0.5}, 7, {"b": None}]) == {"a": 1.5, "b": 2}
    assert page_costs.batch_norms("x") == {}
    assert page_costs.short(["m.2.mlp.up", "m.10.mlp.gate"]) == ["2.up", "10.gate"]
    assert page_costs.short(["m.2.mlp.up"]) == ["m.2.mlp.up"]
