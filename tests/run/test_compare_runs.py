"""What is said of several runs: scores, differences, and which of them are not held to each other."""

import math

import numpy as np
import pytest

from emsedit_jax.measure import intervals
from emsedit_jax.measure.scores import Score, measure
from emsedit_jax.run import compare_runs, compare_table
from tests.refusals import refused
from tests.run import comparing
from tests.run.comparing import ROWS, STRONG, SWING, UNEDITED, WEAK, N, by_score, compared, make, score


@pytest.fixture
def two(tmp_path):
    """A weak run and a strong one."""
    return comparing.two(tmp_path)


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
    assert found.notes == ("a and b: ES (3 of 5 and 5) tested on the items in common.",)


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
    asked = (
        "perplexity not tested, since the runs differ in eval.text_path; ES.exact not tested, since the runs differ in "
    )
    asked += "eval.max_new_tokens"
    assert found.notes == (f"first and longer: {asked}.",)
    (note,) = compared(two[0], first).notes
    assert note == "weak and first: ES.exact, fluency are not in both."


def test_runs_of_other_facts_are_refused(tmp_path, two):
    elsewhere = make(
        tmp_path / "elsewhere", {"ES": score(0.5, [f"other.json row {m}" for m in range(N)])}, {},
        dataset__valid_path="other.json",
    )  # fmt: skip
    with refused("weak and", "have no items in common", "config.dataset.valid_path:  and other.json", "same facts"):
        compared(two[0], elsewhere)
    same_names = make(tmp_path / "same", {"ES": score(0.5)}, {}, dataset__name="counterfact")
    with refused("have no items in common that were asked alike (config.dataset.name: worldfacts and counterfact)"):
        compared(two[0], same_names)


def test_questions_of_one_fact_are_drawn_and_swapped_together(tmp_path):
    names = [f"counterfact.json row {row} #{m}" for row in range(4) for m in range(10)]
    before, after = score(0.0, names), score(np.repeat([0.1, 0.2, 0.3, 0.4], 10), names)
    found = compared(make(tmp_path / "a", {"LS": before}, {}), make(tmp_path / "b", {"LS": after}, {}))
    (one,) = found.differences
    by_facts = intervals.difference(measure("LS"), np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4]))
    assert one[2:7] == pytest.approx((40, *by_facts))
    assert one.p == pytest.approx(2 / 2**4, abs=0.02)
    assert found.columns[1].cells["LS"][1:3] == pytest.approx(
        intervals.interval(measure("LS"), np.array([0.1, 0.2, 0.3, 0.4]))
    )


GIVEN = ("ES", "GS", "GS.last", "GS.exact", "LS", "LS.likelier", "LS.same")


def compared_under(tmp_path, first, second):
    """The scores that are tested of two runs with these settings."""
    scores = {name: score(0.5) for name in GIVEN}
    found = compared(
        make(tmp_path / "first", scores, scores, **first), make(tmp_path / "second", scores, scores, **second)
    )
    return [one.score for one in found.differences], found


@pytest.mark.parametrize(
    ("name", "others"),
    [("fever", {}), ("zsre", {"dataset__batch_size": 8}), ("mquake", {"dataset__n_edits": 7})],
)
def test_the_wordings_that_a_seed_draws_are_other_questions(tmp_path, name, others):
    given = {"dataset__name": name}
    tested, found = compared_under(tmp_path, given, given | others | {"seed": 1})
    if name == "fever":
        assert tested == ["ES", "LS", "LS.likelier", "LS.same"]
        assert found.notes == ("first and second: GS, GS.last, GS.exact not tested, since the runs differ in seed.",)
        assert len(found.columns) == 4  # each its own unedited model
    else:
        assert tested == list(GIVEN)
        assert len(found.columns) == 3


def test_one_seed_draws_the_same_wordings(tmp_path):
    given = {"dataset__name": "fever", "seed": 3}
    assert compared_under(tmp_path, given, given)[0] == list(GIVEN)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"dataset__batch_size": 8}, "dataset.batch_size"),
        ({"dataset__n_edits": 100}, "dataset.n_edits"),
        ({"dataset__shuffle": True}, "dataset.shuffle"),
        ({"seed": 1}, ""),
    ],
)
def test_what_counts_in_counterfact_depends_on_its_micro_batches(tmp_path, settings, told):
    given = {"dataset__name": "counterfact"}
    tested, found = compared_under(tmp_path, given, given | settings)
    cut = ["ES", "GS", "GS.last", "LS"] if told else []
    assert tested == [name for name in GIVEN if name not in cut]
    notes = f"first and second: {', '.join(cut)} not tested, since the runs differ in {told}."
    assert found.notes == ((notes,) if told else ())


def test_another_seed_shuffles_facts_into_other_micro_batches(tmp_path):
    given = {"dataset__name": "counterfact", "dataset__shuffle": True}
    tested, found = compared_under(tmp_path, given, given | {"seed": 1})
    assert tested == ["GS.exact", "LS.likelier", "LS.same"]
    assert "ES, GS, GS.last, LS not tested, since the runs differ in seed" in found.notes[0]


def test_runs_that_were_asked_nothing_alike_are_refused_for_that(tmp_path):
    given = {"dataset__name": "counterfact"}
    first = make(tmp_path / "first", {"ES": score(0.5)}, {}, **given)
    other = make(tmp_path / "other", {"ES": score(0.5)}, {}, **given, dataset__batch_size=8)
    with refused("in common that were asked alike (config.dataset.batch_size: 4 and 8)"):
        compared(first, other)
