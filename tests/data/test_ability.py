import json
import re
from typing import Any

import pytest

from emsedit_jax.data.ability import TASKS, plan_ability, read_items
from tests.refusals import refused

ROWS = {
    "sst2": {"sentence": " a fine film ", "label": 1, "idx": 3},
    "mrpc": {"sentence1": "a", "sentence2": "b", "label": 0},
    "cola": {"sentence": "a b", "label": 0},
    "rte": {"sentence1": "it rains", "sentence2": "it is wet", "label": 0},
    "mmlu": {"question": "what", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "letters"},
    "nli": {"sentence1": "a", "sentence2": "b", "label": "entailment"},
}
ASKED = {  # (prompt, right word)
    "sst2": ("Review : a fine film\nSentiment :", "positive"),
    "mrpc": ("Are the sentences paraphrases of each other.\nSentence 1: a\nSentence 2: b\nAnswer:", "No"),
    "cola": ("Is this sentence linguistically acceptable?\nSentence: a b\nAnswer:", "No"),
    "rte": ("it rains\nquestion: it is wet True or False?\nanswer:", "True"),
    "mmlu": ("Question: what\n(A) w\n(B) x\n(C) y\n(D) z\nAnswer:", "C"),
    "nli": ("a entails the b True or False? Answer:", "True"),
}
GOOD = ROWS["sst2"]


@pytest.fixture
def folder(tmp_path):
    """`folder(sst2=[row, ...])` puts files of rows, or of text, down and returns their folder."""

    def folder(**tasks):
        for name, rows in tasks.items():
            text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return tmp_path

    return folder


def sentences(*labels):
    return [{"sentence": chr(ord("a") + m), "label": label} for m, label in enumerate(labels)]


def planned(folder, letters, **changed):
    settings: dict[str, Any] = {"max_tokens": 64, "longest": None, "tasks": ["sst2"]} | changed
    return plan_ability(folder, letters, **settings)


def prompts(plan):
    """The prompts' letters, item after item."""
    start, questions = plan.tasks["sst2"].start, plan.candidates.questions
    of_items = plan.candidates.sequence_cx[start : start + len(plan.tasks["sst2"].labels), 0]
    return [
        "".join(chr(96 + t) for t in questions.items[q].tokens[1 : questions.items[q].prompt_len]) for q in of_items
    ]


@pytest.mark.parametrize("name", TASKS)
def test_what_is_asked_and_what_is_right(folder, name):
    (item,) = read_items(name, folder(**{name: [ROWS[name]]}) / f"{name}.jsonl")
    assert (item.prompt, TASKS[name].words[item.label]) == ASKED[name]
    assert item.source == f"{name}.jsonl row 0"


def test_every_word_is_a_candidate_of_every_item(folder, letters):
    rte = [ROWS["rte"] | {"label": 1}, ROWS["rte"]]
    plan = planned(folder(sst2=sentences(0, 1, 1), rte=rte), letters, tasks=["rte", "sst2", "rte"])
    assert list(plan.tasks) == ["rte", "sst2"]
    assert (plan.tasks["rte"].start, plan.tasks["sst2"].start) == (0, 2)
    assert plan.tasks["rte"].labels.tolist() == [1, 0]
    assert plan.tasks["sst2"].labels.tolist() == [0, 1, 1]
    assert plan.tasks["sst2"].sources == ("sst2.jsonl row 0", "sst2.jsonl row 1", "sst2.jsonl row 2")
    assert plan.candidates.tokens_cx.tolist() == [[3, 4]] * 2 + [[8, 8]] * 3  # of capitals there is no token
    assert len(plan) == len(list(plan.candidates.units()))


def test_the_first_items_are_scored(folder, letters):
    plan = planned(folder(sst2=sentences(0, 1, 1, 0)), letters, items=2)
    assert plan.tasks["sst2"].labels.tolist() == [0, 1]
    assert prompts(plan) == ["eviewaentiment", "eviewbentiment"]


def test_shots_are_the_last_of_each_label_and_are_not_scored(folder, letters):
    plan = planned(folder(sst2=sentences(1, 0, 0, 1, 1)), letters, shots=2)
    assert plan.tasks["sst2"].sources == tuple(f"sst2.jsonl row {m}" for m in (0, 1, 3))
    shown = "eviewcentimentnegativeevieweentimentpositive"
    assert prompts(plan) == [f"{shown}eview{letter}entiment" for letter in "abd"]


def test_what_is_too_long_is_left_out_and_counted(folder, letters):
    rows = [{"sentence": "a" * length, "label": 0} for length in (1, 9, 2)]
    plan = planned(folder(sst2=rows), letters, longest=24)  # <bos>, 13 letters around, 7 of a word
    assert plan.tasks["sst2"].sources == ("sst2.jsonl row 0", "sst2.jsonl row 2")
    assert plan.tasks["sst2"].left_out == 1
    with refused("sst2.jsonl: no item fits the 20 tokens that the model takes; leave out the task sst2."):
        planned(folder(sst2=rows), letters, longest=20)
    with refused("sst2.jsonl: no item fits the 20 tokens that the model takes; lower the shots."):
        planned(folder(sst2=rows), letters, longest=20, shots=1)


# ---------------------------------------------------------------------------------------------- refusals


def test_all_bad_rows_are_named_in_one_report(folder, letters):
    lines = [
        json.dumps(GOOD),
        json.dumps({"sentence": "a", "label": "1"}),
        '{"sentence": "a", "label": true}',
        '{"sentence": "a", "label": 2.0}',
        '{"sentence": "a", "lable": 1}',
        '{"sentence": " ", "label": 1}',
        '{"sentence": ["a"], "label": 1}',
        "[1]",
        "{broken",
        json.dumps({"sentence": "a", "label": "1"}),
    ]
    with refused(
        "sst2.jsonl: 9 bad rows (counting from 0)",
        "rows 1, 9: field 'label' is \"1\", not 0 or 1",
        "row 2: field 'label' is true, not 0 or 1",
        "row 3: field 'label' is 2.0, not 0 or 1",
        "row 4: field 'label' is missing (Did you mean 'lable'?)",
        "row 5: field 'sentence' is empty",
        "row 6: field 'sentence' is a list, not text",
        "row 7: the row is a list, not an object",
        "row 8: it is not JSON at line 9",
        "leave out the task sst2",
    ):
        planned(folder(sst2="\n".join(lines)), letters)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("mmlu", {"choices": ["w", "x", "y"]}, "field 'choices' holds 3 texts, not 4"),
        ("mmlu", {"choices": "wxyz"}, "field 'choices' is text, not a list"),
        ("mmlu", {"choices": ["w", "x", "", "z"]}, "field 'choices[2]' is empty"),
        ("mmlu", {"answer": 4}, "field 'answer' is 4, not 0 or 1 or 2 or 3"),
        ("mmlu", {"answer": "C"}, "field 'answer' is \"C\""),
        ("nli", {"label": 1}, 'field \'label\' is 1, not "not_entailment" or "entailment"'),
        ("rte", {"label": None}, "field 'label' is null, not 0 or 1"),
        ("rte", {"label": "a" * 99}, "field 'label' is \"" + "a" * 39 + "..."),
    ],
)
def test_a_bad_row_is_named(folder, name, changed, said):
    with refused(f"{name}.jsonl", "row 1", said):
        read_items(name, folder(**{name: [ROWS[name], ROWS[name] | changed]}) / f"{name}.jsonl")


def test_missing_folders_and_files(folder, tmp_path, letters):
    with refused(str(tmp_path / "none"), "there is no such folder"):
        planned(tmp_path / "none", letters)
    (tmp_path / "rte.json").write_text("[]")
    with refused("there is no rte.jsonl (Did you mean 'rte.json'?) and no nli", "only .jsonl is read"):
        planned(folder(sst2=[GOOD]), letters, tasks=["sst2", "rte", "nli"])
    with refused("sst2.jsonl", "the file holds no rows"):
        planned(folder(sst2="\n"), letters)
    (tmp_path / "sst2.jsonl").write_bytes(b'{"sentence": "\xff", "label": 1}')
    with refused("sst2.jsonl", "not UTF-8"):
        planned(tmp_path, letters)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tasks": ["sst"]}, "There is no ability task 'sst'. Did you mean 'sst2'? Known: sst2, mrpc"),
        ({"items": 0}, "at least 1 item and 0 or more shots, not 0 and 0"),
        ({"shots": -1}, "not 100 and -1"),
        ({"shots": 3}, "sst2.jsonl: 3 shots of 3 rows leave nothing to score"),
    ],
)
def test_settings_that_leave_nothing_to_score(folder, letters, changed, said):
    with refused(said):
        planned(folder(sst2=sentences(0, 1, 1)), letters, **changed)


def test_texts_with_braces_are_asked_as_they_are(folder):
    (item,) = read_items("sst2", folder(sst2=[{"sentence": "{label} {0}", "label": 0}]) / "sst2.jsonl")
    assert re.search(r"\{label\} \{0\}\n", item.prompt)
