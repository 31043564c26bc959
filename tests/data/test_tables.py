import gzip
import json
import os
import zipfile

import datasets
import pytest

from emsedit_jax.data import files, tables
from emsedit_jax.data.records import Cue, Role, load
from emsedit_jax.data.tables import Place, parse_place
from tests.refusals import refused

FACT = {"prompt": "p", "answer": "a", "unrelated": [{"prompt": "q", "answer": "b"}]}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """What the library keeps of these tests goes away with them, and nothing is fetched."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path):
    def folder(**splits):
        place = tmp_path / "mine"
        place.mkdir(exist_ok=True)
        for split, rows in splits.items():
            text = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
            (place / f"{split}.jsonl").write_text(text)
        return f"hf:{place}"

    return folder


@pytest.fixture
def hub(monkeypatch):
    """A hub with these splits of whatever is asked for; returns what it was asked for."""

    def hub(**splits):
        asked = []

        def load_dataset(*args):
            asked.append(args)
            return datasets.DatasetDict(**{name: datasets.Dataset.from_list(rows) for name, rows in splits.items()})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return hub


def prompts(path, role: Role = "eval"):
    return [record.edit.prompt for record in load("facts", path, role=role)]


# ---------------------------------------------------------------------------------------------- names


def test_names_of_the_hub(tmp_path):
    assert parse_place("hf:org/name") == Place("org/name", None, None)
    assert parse_place("hf:org/name:test") == Place("org/name", None, "test")
    assert parse_place("hf:org/name/two:test") == Place("org/name", "two", "test")
    assert parse_place(f"hf:{tmp_path}:test") == Place(str(tmp_path), None, "test")


@pytest.mark.parametrize("words", ["hf:", "hf:name", "hf:a/b/c/d", "hf:/b", "hf:a//test", "hf: /b"])
def test_other_names_are_refused(words):
    with refused(
        f"{words}: data sets of the hub are named hf:org/name, hf:org/name:split or hf:org/name/config:split."
    ):
        parse_place(words)


def test_a_colon_without_a_split_is_refused():
    with refused("hf:org/name:: no split is named behind the colon"):
        parse_place("hf:org/name:")


# ---------------------------------------------------------------------------------------------- the hub


def test_the_split_is_the_one_named_or_the_roles_own(hub):
    rows = {split: [{"prompt": split, "answer": "a"}] for split in ("train", "test", "validation", "more")}
    asked = hub(**rows)
    assert prompts("hf:org/name", "train") == ["train"]
    assert prompts("hf:org/name") == ["validation"]
    assert prompts("hf:org/name/two:more") == prompts("hf:org/name/two:more", "train") == ["more"]
    assert asked == [("org/name", None), ("org/name", None), ("org/name", "two"), ("org/name", "two")]
    hub(train=rows["train"], test=rows["test"])
    assert prompts("hf:org/name") == ["test"]
    hub(train=rows["train"])
    assert prompts("hf:org/name:train") == ["train"]
    with refused(
        "hf:org/name: it has no split validation or test to evaluate with. It has train; name one as hf:org/name:train."
    ):
        prompts("hf:org/name")
    with refused("hf:org/name:tset: it has no split tset. It has train; name one as hf:org/name:train."):
        prompts("hf:org/name:tset")
    hub(test=rows["test"], other=rows["test"])
    with refused("hf:org/name:tset: it has no split tset. Did you mean 'test'? It has test, other; name one as"):
        prompts("hf:org/name:tset")
    with refused("hf:org/name: it has no split train to train on. It has test, other; name one as hf:org/name:test."):
        prompts("hf:org/name", "train")
    hub(other=rows["test"])
    with refused("hf:org/name: it has no split validation or test to evaluate with. It has other; name"):
        prompts("hf:org/name")


def test_rows_are_named_by_data_set_and_split(hub):
    hub(test=[FACT, FACT])
    assert [one.source for one in load("facts", "hf:org/name", role="eval")] == [
        "org/name:test row 0",
        "org/name:test row 1",
    ]
    assert load("facts", "hf:org/name/two", role="eval")[0].source == "org/name/two:test row 0"


def test_a_field_that_the_library_has_filled_with_null_is_none(hub):
    hub(test=[{"prompt": "p", "answer": "a", "paraphrases": ["q"]}, {"prompt": "p", "answer": None}])
    (good,) = load("facts", "hf:org/name", role="eval", limit=1)
    assert good.equiv == (Cue("q", "a"),)
    with refused("hf:org/name: 1 bad row (counting from 0): row 1: field 'answer' is missing. Correct"):
        load("facts", "hf:org/name", role="eval")
    hub(
        test=[{"prompt": "p", "target_new": "a", "subject": "s"}, {"rephrase_prompt": "r"}]
    )  # by its form, not by nulls
    (record,) = load("ripple_effect", "hf:org/name", role="eval", limit=1)
    assert record.borrowed == ("equiv", "unrel")


def test_an_empty_split_is_refused(hub):
    hub(test=[])
    with refused("hf:org/name: the file holds no rows."):
        prompts("hf:org/name")


def test_a_data_set_that_cannot_be_had_is_refused():
    with refused("hf:org/nowhere: the data set cannot be had (", "Check its name and the connection, or give its file"):
        prompts("hf:org/nowhere")


# ---------------------------------------------------------------------------------------------- folders


def test_a_folder_of_files_is_read_as_a_data_set(folder, capfd):
    path = folder(
        train=[FACT | {"subject": ""}, FACT | {"prompt": "p1"}], test=[FACT | {"prompt": "p2", "subject": "s"}]
    )
    assert prompts(path, "train") == ["p", "p1"]
    assert prompts(f"{path}:train") == ["p", "p1"]
    (record,) = load("facts", path, role="eval")
    assert (record.edit, record.unrel, record.subject) == (Cue("p2", "a"), (Cue("q", "b"),), "s")
    assert record.source == "mine:test row 0"
    assert capfd.readouterr() == ("", "")


def test_texts_taken_for_dates_are_told(folder):
    path = folder(test=[{"prompt": "p", "answer": "1950-08-03"}, {"prompt": "p", "answer": "1951-08-03"}])
    with refused(
        f"{path}: 2 bad rows (counting from 0): rows 0-1: field 'answer' is a date, not text; give the rows as a"
    ):
        prompts(path)


def test_a_broken_file_of_a_folder_is_told_in_one_line_of_ours(folder, capfd):
    path = folder(train='{"prompt": "p", "answer": "a"}\n{"prompt":\n')
    with refused(f"{path}: the data set cannot be had (JSON parse error: Invalid value. in row 1). Check its name"):
        prompts(path)
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()
    path = folder(train=[FACT], test=[FACT | {"subject": "s", "paraphrases": ["q"] * 99}])
    with refused(
        f"{path}: the data set cannot be had (Couldn't cast prompt: string answer: string ", "...). Check its"
    ):
        prompts(path)


# ---------------------------------------------------------------------------------------------- parquet


def test_a_parquet_file_of_any_data_set(tmp_path):
    path = tmp_path / "facts.parquet"
    datasets.Dataset.from_list([FACT, {"prompt": "東京", "answer": "1950-08-03"}]).to_parquet(path)
    first, second = load("facts", path, role="eval")
    assert (first.unrel, first.source) == ((Cue("q", "b"),), "facts.parquet row 0")
    assert (second.edit, second.unrel) == (Cue("東京", "1950-08-03"), ())
    table = datasets.Dataset.from_list([{"prompt": "p", "answer": "a", "paraphrase_1": "", "paraphrase_2": "q"}])
    table.to_parquet(path)
    assert load("facts", str(path), role="eval")[0].equiv == (Cue("q", "a"),)
    zsre = {"src": "s", "rephrase": "r", "ans": "a", "loc": "l", "loc_ans": "x", "subject": "s"}
    datasets.Dataset.from_list([zsre]).to_parquet(path)
    assert load("zsre", path, role="train")[0].unrel == (Cue("l?", "x"),)


def test_what_is_no_parquet_file_is_refused(tmp_path, capfd):
    path = tmp_path / "facts.parquet"
    with refused(f"{path}: there is no such file"):
        load("facts", path, role="eval")
    path.write_text("prompt,answer\n")
    with refused(f"{path}: it is no Parquet file. Correct the suffix"):
        load("facts", path, role="eval")
    path.write_bytes(b"PAR1" + bytes(40))
    with refused(f"{path}: the file cannot be read ("):
        load("facts", path, role="eval")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["test.jsonl.gz", "test.jsonl", "deep/test.zip"])
def test_an_archive_in_a_folder_is_refused_whatever_its_name(folder, tmp_path, name):
    path = folder(test=[FACT])
    archive = tmp_path / "mine" / name
    archive.parent.mkdir(exist_ok=True)
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("test.jsonl", json.dumps(FACT))
    else:
        archive.write_bytes(gzip.compress(json.dumps(FACT).encode()))
    with refused(f"{archive}: it is an archive (", "Unpack it, and take it out of the folder."):
        prompts(path)


def test_a_pipe_in_a_folder_is_refused(folder, tmp_path):
    path = folder(test=[FACT])
    os.mkfifo(tmp_path / "mine" / "more.jsonl")
    with refused("more.jsonl: it is no regular file, but a device or pipe"):
        prompts(path)


def test_a_local_path_is_no_name_of_the_hub(tmp_path):
    assert not tables.is_hub(tmp_path / "hf:a")
    assert not tables.is_hub("hf/a")
    with refused("there is no such file"):
        files.read("hf/a.jsonl", ["jsonl"], "eval")
