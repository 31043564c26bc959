import dataclasses
import os
import signal

import numpy as np
import pytest

from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.cues import Asked, Cue, EditRecord
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.errors import InputError
from emsedit_jax.measure.scores import Score, measure
from emsedit_jax.meta import trajectory
from emsedit_jax.run import cli, edits, exam, examine, items, keeper, networks, report, scoring
from emsedit_jax.run.exam import Spoken
from tests.run import tiny
from tests.run.broken_off import counted, power_cut, same_run

FURTHER = ("--config.eval.further", "--config.eval.generated=3", "--config.eval.fluency=2")
CUE = Cue("asked", "answered")


def plan_of(*counts):
    """Batches of facts with so many paraphrases each."""
    drawn = [
        [
            EditRecord(edit=CUE, equiv=(CUE,) * count, unrel=(), subject="", source=f"row {j * len(batch) + m}")
            for m, count in enumerate(batch)
        ]
        for j, batch in enumerate(counts)
    ]
    return EditPlan(np.zeros((len(counts), len(counts[0])), np.int32), {}, 1, "ans", drawn, {})


@pytest.fixture(scope="module")
def asked(tmp_path_factory, quick_compiles):
    folder = tmp_path_factory.mktemp("runs") / "asked"
    tiny.train(folder, *FURTHER)
    return folder


def test_everything_is_asked_before_and_after(asked):
    summary = tiny.read(asked / "summary.json")
    both = ["ES", "GS", "LS", "ES.exact", "ES.contained", "GS.exact", "GS.contained", "fluency", "perplexity"]
    unedited, edited = (summary["scores"][name] for name in ("unedited", "edited"))
    assert list(unedited) == both
    assert list(edited) == [*both, "LS.same", "LS.kl"]
    assert [summary["items"]["edited"][name] for name in ("ES", "ES.exact", "GS.exact", "fluency")] == [8, 3, 3, 2]
    assert edited["LS.same"] < 100
    assert edited["LS.kl"] > 0
    assert edited["perplexity"] > 1
    for row in ("unedited", "edited"):
        for name, (low, high) in summary["intervals"][row].items():
            assert low - 1e-9 <= summary["scores"][row][name] <= high + 1e-9


def test_failures_are_told_with_their_texts():
    """Two facts with two other wordings and an unrelated prompt that they share; the first fact takes."""

    def fact(name):
        others = tuple(Cue(f"{name} {m}?", name) for m in range(2))
        return EditRecord(Cue(f"{name}?", name), others, (Cue("sky?", "blue"),), "", name)

    def scores(es, gs, ls):
        wordings = tuple(f"{name} #{m}" for name in "pq" for m in range(2))
        found = {"ES": (es, "pq"), "GS": (gs, wordings), "LS": (ls, "pq")}
        return {name: Score(np.array(values, np.float64), tuple(items)) for name, (values, items) in found.items()}

    plan = EditPlan(np.zeros((1, 2), np.int32), {}, 1, "ans", [[fact("p"), fact("q")]], {})
    spoken = (Spoken("ES", "q", "q?", ("q",)), Spoken("GS", "p", "p 0?", ("p",)))
    before = examine.Examined(scores([0, 0], [0, 0, 0, 0], [1, 1]), ("?", "?"))
    after = examine.Examined(scores([1, 0.5], [1, 0, 0, 0], [0, 0.5]), ("well", "p"))
    assert examine.failed(plan, exam.Exam(spoken), before, after) == {
        "ES": [{"item": "q", "prompt": "q?", "answer": "q", "said": "well", "times": 1}],
        "GS": [{"item": "p #1", "prompt": "p 1?", "answer": "p", "said": None, "times": 1}],
        "LS": [{"item": "p", "prompt": "sky?", "answer": "blue", "said": None, "times": 2}],
    }


def test_every_item_is_on_file(asked):
    summary, found = tiny.read(asked / "summary.json"), items.read(asked / "scores.json")
    assert {row: list(scores) for row, scores in found.items()} == {
        row: list(scores) for row, scores in summary["scores"].items()
    }
    assert found["edited"]["ES"].items == tuple(f"zsre_eval.json row {row}" for row in range(8))
    assert found["edited"]["ES.exact"].items == tuple(
        f"zsre_eval.json row {row}" for row in (0, 7, 4)
    )  # those that are shown come first
    for row, scores in found.items():
        for name, score in scores.items():
            assert measure(name).total(score.values) == summary["scores"][row][name]


def test_further_scores_change_nothing_else(asked, finished):
    with_them, without = (tiny.read(folder / "summary.json") for folder in (asked, finished))
    assert with_them["digests"] == without["digests"]
    for row, scores in without["scores"].items():
        assert {name: with_them["scores"][row][name] for name in scores} == scores


def test_what_is_said_is_held_to_any_of_the_answers():
    spoken = [
        Spoken("ES", "row 0", "p", ("Paris",)),
        Spoken("ES", "row 1", "p", ("Rome",)),
        Spoken("GS", "row 0", "p", ("Paris",)),
        Spoken("asks.Forgetfulness", "row 0 #0", "p", ("Lyon", "Nice")),
        Spoken("asks.Forgetfulness", "row 0 #1", "p", ("Lyon",)),
    ]
    found = examine.answered(spoken, ["Paris.", "It is Rome", "Berlin", "in Nice", "Parisian"])
    assert {name: score.values.tolist() for name, score in found.items()} == {
        "ES.exact": [1.0, 0.0],
        "ES.contained": [1.0, 1.0],
        "GS.exact": [0.0],
        "GS.contained": [0.0],
        "asks.Forgetfulness": [1.0, 0.0],
    }
    assert found["ES.exact"].items == ("row 0", "row 1")


def test_tenths_are_of_facts_not_of_prompts():
    plan = plan_of([1] * 10, [1] * 9 + [3])  # 20 facts, the last one with three prompts
    names = exam.item_names(plan, "equiv")
    assert names[-4:] == ("row 18", "row 19 #0", "row 19 #1", "row 19 #2")
    values = np.arange(22.0)
    found = examine.retention(plan, {"GS": Score(values, names)})
    assert {name: score.values.tolist() for name, score in found.items()} == {
        "GS.first": [0.0, 1.0],
        "GS.middle": [9.0, 10.0],
        "GS.last": [18.0, 19.0, 20.0, 21.0],
    }
    assert found["GS.last"].items == names[-4:]


def fact(row, **more):
    known = EditRecord(edit=CUE, equiv=(), unrel=(), subject="", source=f"f row {row}")
    return dataclasses.replace(known, **more)


def test_facts_are_shown_graded_or_both():
    facts = [fact(row, equiv=(Cue("otherwise", "answered"),), borrowed=("equiv",) * (row == 2)) for row in range(4)]
    spoken = exam._facts_spoken(facts, shown=[0, 3], graded=[0, 1, 2])
    assert [(one.score, one.item) for one in spoken] == [
        ("ES", "f row 0"),
        ("", "f row 3"),  # only shown
        ("ES", "f row 1"),
        ("ES", "f row 2"),
        ("GS", "f row 0"),
        ("GS", "f row 1"),  # the third has no wording of its own
    ]
    assert list(examine.answered(spoken, ["answered"] * 6)) == ["ES.exact", "ES.contained", "GS.exact", "GS.contained"]


def test_further_questions_are_asked_of_whole_rows_and_so_many_of_each_sort():
    asked = (Asked("hop", "a", ("x", "y")), Asked("hop", "b", ("x",)), Asked("alias", "c", ("z",)))
    whole = [fact(f"1 fact {m}", parts=2, asked=asked * m) for m in range(2)]
    alone = fact("2 fact 1", parts=2, asked=asked)  # the other fact of its row is not edited
    found = exam._asked([*whole, alone], 0)
    assert [(one.score, one.item, one.answers) for one in found] == [
        ("asks.hop", "f row 1 #hop 0", ("x", "y")),
        ("asks.hop", "f row 1 #hop 1", ("x",)),
        ("asks.alias", "f row 1 #alias 0", ("z",)),
    ]
    assert [one.item for one in exam._asked([*whole, alone], 1)] == ["f row 1 #hop 0", "f row 1 #alias 0"]


def test_an_edited_prompt_that_stands_in_is_no_unrelated_one():
    facts = [fact(0, unrel=(CUE, CUE)), fact(1, unrel=(CUE,), borrowed=("unrel",)), fact(2, unrel=(CUE,))]
    items = [TokenItem((m,), (1,), 1) for m in range(4)]
    plan = EditPlan(np.zeros((1, 3), np.int32), {}, 1, "ans", [facts], {"unrel": [items]})
    assert exam._unrelated(plan) == ([items[0], items[1], items[3]], ("f row 0 #0", "f row 0 #1", "f row 2"))


def test_fewer_than_ten_facts_have_no_tenths():
    plan = plan_of([1] * 9)
    assert examine.retention(plan, {"GS": Score(np.zeros(9), exam.item_names(plan, "equiv"))}) == {}


@pytest.mark.parametrize(
    ("size", "count", "places"), [(10, 3, [0, 4, 9]), (3, 5, [0, 1, 2]), (5, 1, [0]), (0, 3, []), (4, 0, [])]
)
def test_facts_are_chosen_from_all_along_the_sequence(size, count, places):
    assert exam.spread(size, count) == places


def test_a_text_of_ones_own_is_read(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfa b")
    assert exam.read_text(str(tmp_path / "text.txt")) == "a b"
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text at byte 3"):
        exam.read_text(str(tmp_path / "latin.txt"))
    with pytest.raises(InputError, match="no such file"):
        exam.read_text(str(tmp_path / "missing.txt"))


def test_a_text_that_is_too_long_or_need_have_no_end_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(b"a\r\nb\rc\n")
    assert exam.read_text(str(path)) == "a\nb\nc\n"
    monkeypatch.setattr(exam, "MOST_TEXT", 4)
    with pytest.raises(InputError, match=r"text.txt: it is longer than any such file \(4 bytes\)"):
        exam.read_text(str(path))
    with pytest.raises(InputError, match=r"/dev/zero: it is no regular file, but a device or pipe"):
        exam.read_text("/dev/zero")


# ---------------------------------------------------------------------------------------------- going on


def interrupted(tmp_path, monkeypatch, where, name):
    """A run broken off at its first call of `name` in `where`, and begun again."""
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", *FURTHER)
    with monkeypatch.context() as patch:
        counted(patch, where, name, 1, power_cut)
        assert tiny.call(*flags) == 130
    assert not (tmp_path / "run" / "summary.json").exists()
    assert tiny.call(*flags) == 0
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("module", "name", "stages"),
    [
        (scoring, "joined", 0),  # of the unedited model's scores
        (networks, "save", 1),
        (edits, "save", 2),
        (examine, "retention", 3),
        (report, "plot_curve", 4),
    ],
)
def test_a_run_broken_off_goes_on_to_the_same_bits(asked, tmp_path, monkeypatch, capsys, module, name, stages):
    folder = interrupted(tmp_path, monkeypatch, module, name)
    assert capsys.readouterr().out.count("done before") == stages
    mine, theirs = (tiny.read(one / "summary.json") for one in (folder, asked))
    for part in ("scores", "intervals", "items", "edits", "digests", "examples", "trained_on"):
        assert mine[part] == theirs[part]
    assert tiny.rows(folder) == tiny.rows(asked)
    for file in ("scores.json", "edits.safetensors", "hypernet.safetensors", "curve.png"):
        assert (folder / file).read_bytes() == (asked / file).read_bytes()
    assert not (folder / "stages").exists()


def test_questions_of_a_sort_that_is_done_are_not_put_again(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(keeper, "WORTH_S", 0.0)
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", *FURTHER)
    said = counted(monkeypatch, examine.speech, "lines")
    trained = counted(monkeypatch, trajectory, "train_batch")
    read = counted(monkeypatch, examine, "ask")
    with monkeypatch.context() as patch:  # asked to stop amid the longer texts of the unedited model
        counted(patch, examine.speech, "texts", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert tiny.call(*flags) == cli.PREEMPTED
    assert (len(said), len(read), len(trained)) == (1, 0, 0)
    with monkeypatch.context() as patch:  # dies before the last sort of questions to the edited one
        counted(patch, examine, "drift", 1, power_cut)
        assert tiny.call(*flags) == cli.INTERRUPTED
    assert (len(said), len(read), len(trained)) == (2, 2, 2)
    assert tiny.call(*flags) == 0
    assert (len(said), len(read), len(trained)) == (2, 2, 2)
    same_run(tmp_path / "run", asked)
