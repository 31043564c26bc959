import csv
import io
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsedit_jax.data import files
from emsedit_jax.data.fields import RowFault
from emsedit_jax.data.records import load
from tests.refusals import refused

FOREIGN = ["القاهرة هي عاصمة مصر", "שלום עולם", "東京は日本の首都", "Brasília", "😀", "a\u2028b\u0085c"]
MARK = "\ufeff".encode()


@pytest.fixture
def put(tmp_path):
    def put(content, name):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def rows(path, forms=("jsonl", "csv")):
    return list(files.read(path, forms, "eval").rows)


# ---------------------------------------------------------------------------------------------- any text


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_any_line_ends_are_read(put, mark, end):
    objects = [{"prompt": text, "answer": "a"} for text in FOREIGN]
    lines = end.join(json.dumps(one, ensure_ascii=False) for one in objects) + end
    assert rows(put(mark + lines.encode(), "f.jsonl")) == objects
    listed = json.dumps(objects, ensure_ascii=False, indent=1).replace("\n", end)
    assert rows(put(mark + listed.encode(), "f.json"), ["json"]) == objects
    table = end.join(["prompt,answer", *(f'"{text}",a' for text in FOREIGN)]) + end
    assert rows(put(mark + table.encode(), "f.csv")) == objects


@pytest.mark.parametrize("name", ["f.jsonl", "f.csv", "f.json"])
@pytest.mark.parametrize("ends", ["le", "be"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_encodings_are_known_by_their_mark(put, name, ends, encoding):
    path = put("\ufeffprompt,answer\n".encode(f"{encoding}-{ends}"), name)
    with refused(
        f"{path}: the text is {encoding.upper()}, not UTF-8. Save the file as UTF-8, for instance: iconv -f {encoding} "
    ):
        rows(path, (name.removeprefix("f."),))


@pytest.mark.parametrize("name", ["f.jsonl", "f.csv", "f.json"])
def test_another_encoding_is_refused_with_the_byte_and_the_remedy(put, name):
    path = put(b'[{"prompt": "caf\xe9"}]', name)
    with refused(f"{path}: not UTF-8 text at byte 16 (0xe9). Save the file as UTF-8, for instance: iconv -f latin1"):
        rows(path, (name.removeprefix("f."),))
    path = put(MARK + b"\xff", name)  # counted with the mark
    with refused("at byte 3 (0xff)"):
        rows(path, (name.removeprefix("f."),))


def test_the_suffix_says_which_of_several_forms_a_file_is_in(put):
    line = '{"prompt": "p"}'
    assert rows(put(line, "F.JSONL")) == rows(put("prompt\np\n", "F.CSV")) == [{"prompt": "p"}]
    assert rows(put(line, "f.txt"), ["jsonl"]) == [{"prompt": "p"}]  # where there is one form, no suffix is asked for
    path = put(line, "f.json")
    with refused(f"{path}: the file's suffix must say what it holds, one of .jsonl, .csv, .parquet. Did you mean '.js"):
        rows(path)


def test_lines_where_one_list_is_wanted(put):
    path = put('{"src": "a"}\n{"src": "b"}\n', "f.jsonl")
    with refused(
        f"{path}: it must hold one JSON list of rows, but goes on at line 2 (a row of JSON a line becomes one by: jq -s"
    ):
        rows(path, ["json"])
    with refused("it is not JSON at line 1, column 2: Expecting value. Correct the file"):
        rows(put("[", "f.json"), ["json"])


def test_a_path_that_no_file_can_have(tmp_path):
    with refused("the file cannot be read (embedded null byte). Check the path."):
        rows(f"{tmp_path}/a\0.jsonl")


def test_what_is_longer_than_any_text_or_need_have_no_end_is_refused(put, tmp_path, monkeypatch):
    path = put('{"prompt": "p"}', "f.jsonl")
    monkeypatch.setattr(files, "MOST_BYTES", path.stat().st_size)
    assert rows(path) == [{"prompt": "p"}]
    monkeypatch.setattr(files, "MOST_BYTES", path.stat().st_size - 1)
    with refused(f"{path}: the file cannot be read (it is longer than any such file (14 bytes))"):
        rows(path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with refused(f"{path}: the file cannot be read (it is no regular file, but a device or pipe). Check the path."):
            rows(path, ("json",))


# ---------------------------------------------------------------------------------------------- tables


def test_cells_may_hold_commas_quotes_and_line_ends(put):
    path = put('prompt, answer\r\n"a, ""b""\r\nc\nd", e \r\n\r\n,\r\nf,g', "f.csv")
    assert rows(path) == [{"prompt": 'a, "b"\r\nc\nd', "answer": " e "}, {"prompt": "f", "answer": "g"}]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_cells_may_be_apart_by_semicolons_or_tabs(put, mark):
    path = put(f"prompt{mark}answer\np, q{mark}a\n", "f.csv")
    assert rows(path) == [{"prompt": "p, q", "answer": "a"}]
    assert rows(put(f"prompt,an{mark}swer\np,a{mark}\n", "g.csv")) == [{"prompt": "p", f"an{mark}swer": f"a{mark}"}]


def test_a_row_of_too_many_or_too_few_cells_is_a_bad_row(put):
    good, long, short = rows(put("prompt,answer\np,a\np,a,b\np\n", "f.csv"))
    assert good == {"prompt": "p", "answer": "a"}
    assert isinstance(long, RowFault)
    assert str(long) == 'it has 3 cells, the first line has 2; a text with commas stands in "quotes"'
    assert isinstance(short, RowFault)
    assert str(short) == "it has 1 cells, the first line has 2"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file holds no rows"),
        ("prompt,answer\n", "the file holds no rows"),
        ("prompt,answer\n,\n \n", "the file holds no rows"),
        ("prompt,,answer\np,a,b\n", "column 2 has no name in the first line"),
        (
            "prompt,paraphrase,paraphrase\np,a,b\n",
            "column 'paraphrase' comes twice; number such columns, paraphrase_1 and",
        ),
        ('prompt,answer\np,a\n"p,a\np,b\n', "it is not CSV at line 4: unexpected end of data"),
        ('prompt,answer\n"p"q,a\n', "it is not CSV at line 2: ',' expected after '\"'"),
        ("prompt,answer\n" + "p" * 200_000 + ",a\n", "it is not CSV at line 2: field larger than field limit (131072)"),
    ],
)
def test_what_is_no_table_is_refused(put, content, says):
    path = put(content, "f.csv")
    with refused(f"{path}: {says}"):
        rows(path)


# any text that a fact may hold: no half characters, no NUL, not blank
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip)
FACTS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(FACTS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([b"", MARK]))
def test_any_text_comes_back_from_a_table_as_it_was_written(tmp_path_factory, facts, end, mark):
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerows([("prompt", "answer"), *facts])
    path = tmp_path_factory.mktemp("any") / "f.csv"
    path.write_bytes(mark + out.getvalue().encode())
    found = [(record.edit.prompt, record.edit.answer) for record in load("facts", path, role="eval")]
    assert found == [(prompt, answer.strip()) for prompt, answer in facts]


@settings(max_examples=100, deadline=None)
@given(FACTS, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_any_text_comes_back_from_lines_as_it_was_written(tmp_path_factory, facts, ascii_only, end):
    lines = [json.dumps({"prompt": prompt, "answer": answer}, ensure_ascii=ascii_only) for prompt, answer in facts]
    path = tmp_path_factory.mktemp("any") / "f.jsonl"
    path.write_bytes(end.join(lines).encode())
    found = [(record.edit.prompt, record.edit.answer) for record in load("facts", path, role="eval")]
    assert found == [(prompt, answer.strip()) for prompt, answer in facts]
