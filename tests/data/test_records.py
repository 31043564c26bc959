import json

import pytest

from emsedit_jax.data.faults import Fault, by_row
from emsedit_jax.data.records import READERS, Cue, EditRecord, load, parse_rows, read
from emsedit_jax.errors import InputError

ZSRE = {
    "src": "Who wrote Emma?",
    "rephrase": "Emma is by whom?",
    "ans": "Goethe",
    "loc": "nq question: who sang Help",
    "loc_ans": "The Beatles",
    "subject": "Emma",
}
FACT = {
    "id": "w1",
    "relation": "author",
    "subject": "Emma",
    "prompt": "Emma was written by",
    "answer_true": "Jane Austen",
    "answer_new": "Goethe",
    "paraphrases": ["The author of Emma is", "Emma is a book by"],
    "unrelated": [{"prompt": "The capital of Peru is", "answer": "Lima"}, {"prompt": "p", "answer": "q"}],
}


def refusal(name, path, **kwargs):
    with pytest.raises(InputError) as caught:
        load(name, path, role="eval", **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_zsre_appends_the_question_mark_to_the_unrelated_prompt_only(write):
    row = {**ZSRE, "src": "Who wrote Emma", "answers": ["Jane Austen"]}
    assert load("zsre", write([row]), role="eval") == [
        EditRecord(
            edit=Cue("Who wrote Emma", "Goethe"),
            equiv=(Cue("Emma is by whom?", "Goethe"),),
            unrel=(Cue("nq question: who sang Help?", "The Beatles"),),
            subject="Emma",
            source="facts.json row 0",
        )
    ]


def test_a_zsre_row_needs_no_subject(write):
    bare = {name: value for name, value in ZSRE.items() if name != "subject"}
    named, unnamed = load("zsre", write([ZSRE, bare]), role="eval")
    assert (named.subject, unnamed.subject) == ("Emma", "")
    assert (named.edit, named.equiv, named.unrel) == (unnamed.edit, unnamed.equiv, unnamed.unrel)


def test_worldfacts_writes_the_new_answer_and_takes_the_first_of_each_list(write):
    path = write(json.dumps(FACT) + "\n\n" + json.dumps({**FACT, "subject": "Faust\u2028"}, ensure_ascii=False) + "\n")
    first, second = load("worldfacts", path, role="train")
    assert first == EditRecord(
        edit=Cue("Emma was written by", "Goethe"),
        equiv=(Cue("The author of Emma is", "Goethe"),),
        unrel=(Cue("The capital of Peru is", "Lima"),),
        subject="Emma",
        source="facts.json row 0",
    )
    assert (second.subject, second.source) == ("Faust\u2028", "facts.json row 1")


def test_texts_are_taken_with_their_spaces(write):
    row = ZSRE | {"src": " Who?", "rephrase": "Who? ", "ans": " Goethe ", "loc": " q ", "loc_ans": "\ta"}
    (record,) = load("zsre", write([row]), role="eval")
    assert (record.edit, record.equiv[0]) == (Cue(" Who?", " Goethe "), Cue("Who? ", " Goethe "))
    assert record.unrel == (Cue(" q ?", "\ta"),)


def test_rows_of_one_subject_or_prompt_are_all_read(write):
    path = write([ZSRE, ZSRE | {"ans": "Fontane"}, ZSRE | {"src": "When was Emma written?"}])
    records = load("zsre", path, role="eval")
    assert [one.edit.answer for one in records] == ["Goethe", "Fontane", "Goethe"]
    assert {one.subject for one in records} == {"Emma"}
    assert len({one.source for one in records}) == 3


def test_the_role_decides_and_not_the_file_name(write, monkeypatch):
    seen = []
    reader = READERS["zsre"]
    monkeypatch.setitem(
        READERS, "zsre", reader._replace(cues=lambda row, role, draw: seen.append(role) or reader.cues(row, role, draw))
    )
    load("zsre", write([ZSRE], "zsre_train.json"), role="eval")
    load("zsre", write([ZSRE], "zsre_eval.json"), role="train")
    assert seen == ["eval", "train"]


def test_a_byte_order_mark_and_foreign_letters_are_read(write):
    path = write("\ufeff" + json.dumps([{**ZSRE, "ans": "Brasília 東京"}], ensure_ascii=False))
    assert load("zsre", path, role="eval")[0].edit.answer == "Brasília 東京"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"limit": 2}, [0, 1]),
        ({"limit": 9}, [0, 1, 2, 3, 4]),
        ({"rows": (1, 4)}, [1, 2, 3]),
        ({"rows": (1, 5), "limit": 2}, [1, 2]),
        ({"rows": (3, None)}, [3, 4]),
    ],
)
def test_limit_and_rows_choose_rows_of_the_file(write, choice, expected):
    path = write([{**ZSRE, "subject": str(i)} for i in range(5)])
    found = load("zsre", path, role="eval", **choice)
    assert [record.subject for record in found] == [str(i) for i in expected]
    assert [record.source for record in found] == [f"facts.json row {i}" for i in expected]


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"rows": (0, 6)}, "rows 0:6 are asked for, the file has rows 0:5"),
        ({"rows": (3, 3)}, "rows 3:3"),
        ({"rows": (-1, 3)}, "rows -1:3"),
        ({"rows": (5, None)}, "rows 5:5 are asked for"),
        ({"limit": 0}, "a limit of 0 rows"),
    ],
)
def test_rows_that_are_not_there_are_refused(write, choice, says):
    assert says in refusal("zsre", write([ZSRE] * 5), **choice)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("4096:8192", (4096, 8192)),
        ("4096:", (4096, None)),
        (":100", (0, 100)),
        (":", (0, None)),
        (" 3 : 4 ", (3, 4)),
        ("", None),
        (" ", None),
    ],
)
def test_rows_are_parsed(words, expected):
    assert parse_rows(words) == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("12", "rows are given as START:STOP, such as 4096:8192, 4096: or :100, not '12'"),
        ("1:2:3", "not '1:2:3'"),
        ("-3:", "not '-3:'"),
        ("a:b", "not 'a:b'"),
        ("1-5", "not '1-5'"),
        ("1.5:3", r"not '1\.5:3'"),
        ("9" * 5000 + ":", "START:STOP"),
        ("8:4", "rows '8:4' are none: the stop, which is not read itself, must be after the start"),
        ("4:4", "rows '4:4' are none"),
        (":0", "rows ':0' are none"),
    ],
)
def test_rows_that_cannot_be_parsed_are_refused(words, says):
    with pytest.raises(InputError, match=says):
        parse_rows(words)


def test_rows_outside_the_choice_are_not_looked_at(write):
    path = write([ZSRE, {}, ZSRE])
    assert len(load("zsre", path, role="eval", limit=1)) == 1
    assert "row 1: field 'ans' is missing" in refusal("zsre", path, rows=(1, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ans": ""}, "field 'ans' is empty"),
        ({"src": " \n"}, "field 'src' is empty"),
        ({"loc": ""}, "field 'loc' is empty"),
        ({"loc_ans": None}, "field 'loc_ans' is null, not text"),
        ({"ans": ["Goethe"]}, "field 'ans' is a list, not text"),
        ({"ans": 1998}, "field 'ans' is a number, not text"),
        ({"ans": True}, "field 'ans' is true or false, not text"),
        ({"rephrase": {}}, "field 'rephrase' is an object, not text"),
        ({"subject": 3}, "field 'subject' is a number, not text"),
        ({"ans": "\ud83d"}, "field 'ans' holds half a Unicode character"),
        ({"src": "a\0b"}, "field 'src' holds a NUL character"),
    ],
)
def test_a_bad_field_is_named_with_file_and_row(write, change, says):
    path = write([ZSRE, ZSRE, {**ZSRE, **change}])
    message = refusal("zsre", path)
    assert message.startswith(f"{path}: 1 bad row (counting from 0): row 2: {says}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"paraphrases": []}, "field 'paraphrases' is an empty list"),
        ({"paraphrases": "one"}, "field 'paraphrases' is text, not a list"),
        ({"paraphrases": [""]}, "field 'paraphrases[0]' is empty"),
        ({"unrelated": ["one"]}, "unrelated[0] is text, not an object"),
        ({"unrelated": [{"prompt": "p"}]}, "field 'unrelated[0].answer' is missing"),
        ({"unrelated": [{"prompt": "p", "answer": ""}]}, "field 'unrelated[0].answer' is empty"),
    ],
)
def test_a_bad_nested_field_is_named_by_its_path(write, change, says):
    assert f"row 0: {says}" in refusal("worldfacts", write(json.dumps({**FACT, **change})))


def test_a_misspelt_field_is_met_with_the_nearest_one(write):
    row = {("answer" if field == "ans" else field): value for field, value in ZSRE.items()}
    assert "row 0: field 'ans' is missing (Did you mean 'answer'" in refusal("zsre", write([row]))


def test_all_bad_rows_are_told_and_those_with_the_same_fault_together(write):
    rows = [ZSRE, {}, 7, {**ZSRE, "ans": ""}, {}, ZSRE, {}, {}, {}, {**ZSRE, "ans": None}]
    path = write(rows)
    assert refusal("zsre", path) == (
        f"{path}: 8 bad rows (counting from 0): rows 1, 4, 6-8: field 'ans' is missing; row 2: the row is a number, "
        "not an object; row 3: field 'ans' is empty; row 9: field 'ans' is null, not text. Correct the file, or the "
        "data set's name (zsre), or leave such rows out with --config.dataset.on_bad_row=skip."
    )


def test_bad_rows_are_left_out_and_told(write):
    found = read("zsre", write([{}, ZSRE, 7, ZSRE]), role="eval")
    assert [record.source for record in found.records] == ["facts.json row 1", "facts.json row 3"]
    assert found.faults == [
        Fault("row 0", "field 'ans' is missing"),
        Fault("row 2", "the row is a number, not an object"),
    ]
    assert by_row(found.faults, f"{found.name} ") == (
        "facts.json row 0: field 'ans' is missing",
        "facts.json row 2: the row is a number, not an object",
    )


def test_a_file_without_a_good_row_is_refused_though_bad_rows_may_be_left_out(write):
    with pytest.raises(InputError, match=r"2 bad rows .*: rows 0-1: field 'ans' is missing\. Correct .* \(zsre\)\.$"):
        read("zsre", write([{}, {}]), role="eval")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[\n{"src": "a",}\n]', "it is not JSON at line 2, column 13"),
        ("", "it is not JSON at line 1, column 1"),
        ('{"src": "a"}', "it holds an object, not a list of rows"),
        ("[]", "the file holds no rows"),
        ("[" * 100_000, "nested too deep"),
        ("[" + "9" * 5000 + "]", "integer string conversion"),
    ],
)
def test_a_file_that_is_no_list_of_rows_is_refused(write, content, says):
    path = write(content)
    message = refusal("zsre", path)
    assert message.startswith(f"{path}: ")
    assert says in message


def test_a_bad_line_of_json_lines_is_a_bad_row_like_any_other(write):
    path = write("\n".join([json.dumps(FACT), "", "{]", "7", json.dumps(FACT), '{"prompt"']))
    message = refusal("worldfacts", path)
    assert f"{path}: 3 bad rows (counting from 0): row 1: it is not JSON at line 3, column 2: " in message
    assert "; row 2: the row is a number, not an object; row 4: it is not JSON at line 6, column 10: " in message
    found = read("worldfacts", path, role="eval")
    assert [record.source for record in found.records] == ["facts.json row 0", "facts.json row 3"]
    for line, says in (("[" * 100_000, "nested too deep to be a row, at line 1"), ("9" * 5000, "not JSON at line 1: ")):
        assert says in refusal("worldfacts", write(line))


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.json"
    path.write_bytes(b'["caf\xe9"]')
    assert refusal("zsre", path) == (
        f"{path}: not UTF-8 text at byte 5 (0xe9). "
        "Save the file as UTF-8, for instance: iconv -f latin1 -t utf-8 OLD > NEW."
    )


def test_a_missing_file_is_met_with_its_neighbours(write):
    path = write([ZSRE], "zsre_eval.json")
    message = refusal("zsre", path.with_name("zsre_evl.json"))
    assert "zsre_evl.json: there is no such file (Did you mean 'zsre_eval.json'?)" in message
    assert "there is no such file; check the path" in refusal("zsre", path.parent / "none" / "other")


def test_a_folder_and_an_empty_path_are_refused(tmp_path):
    assert f"{tmp_path}: the file cannot be read (Is a directory)" in refusal("zsre", tmp_path)
    assert "No file is given for the data set zsre" in refusal("zsre", "")


def test_an_unknown_data_set_is_met_with_near_ones(write):
    message = refusal("zrse", write([ZSRE]))
    assert (
        "no data set 'zrse'. Did you mean 'zsre'? Known: zsre, counterfact, ripple_effect, fever, mquake, e" in message
    )
