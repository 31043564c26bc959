"""What a person gets wrong: one line on stderr, exit code 2, and nothing written."""

import json
import shutil

import pytest

from tests.run import tiny


def refused(capsys, said, *args):
    """One line, exit code 2."""
    capsys.readouterr()
    assert tiny.call(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert said in error


BAD_ROWS = {
    "nothing": ("", "not JSON at line 1"),
    "half": ('[{"src": "a', "not JSON at line 1, column"),
    "object": ("{}", "it holds an object, not a list of rows"),
    "field": ("[{row}, {field}]", "row 1: field 'src' is missing"),
    "answer": ("[{row}, {row}, {answer}]", "row 2: field 'ans' is empty"),
}


@pytest.mark.parametrize("role", ["train", "valid"])
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_data_are_named_by_file_row_and_field(tmp_path, capsys, role, kind):
    good = json.loads((tiny.DATA / "zsre_eval.json").read_text())[0]
    bad = {
        "{row}": good,
        "{field}": {name: value for name, value in good.items() if name != "src"},
        "{answer}": good | {"ans": " "},
    }
    text, said = BAD_ROWS[kind]
    for name, row in bad.items():
        text = text.replace(name, json.dumps(row))
    file, workdir = tmp_path / "mine.json", tmp_path / "run"
    file.write_text(text)
    flags = tiny.flags(f"--config.dataset.{role}_path={file}", f"--workdir={workdir}")
    refused(capsys, said, *flags)
    refused(capsys, str(file), *flags)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (f"--config.dataset.valid_path={tiny.DATA / 'zsre_evl.json'}", "Did you mean 'zsre_eval.json'"),
        ("--config.dataset.train_path=", "--config.dataset.train_path is empty"),
        ("--config.dataset.n_edits=31", "num_seq=2 x n_edits=31 = 62 facts are needed, but there are 60"),
        ("--config.dataset.name=zrse", "Did you mean 'zsre'"),
        ("--config.editor.name=emsedt", "Did you mean 'emsedit'"),
        ("--config.dataset.name=zrse", "--config.dataset.name=zrse: must be one of zsre, counterfact, "),
        ("--config.editor.name=emsedt", "--config.editor.name=emsedt: must be one of emsedit, rledit, "),
        ("--config.model.name_or_path=smollm2-135b", "Did you mean 'smollm2-135m'"),
        ("--config.model.edit_modules=('model.layers.{1..2}.mlp.gate_prj',)", "Did you mean 'model.layers.1.mlp.gate"),
        (
            "--config.model.edit_modules=('model.layers.{4..5}.mlp.up_proj',)",
            "up_proj' is no linear layer",
        ),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(tmp_path, capsys, flag, said):
    refused(capsys, said, *tiny.flags(flag, f"--workdir={tmp_path / 'run'}"))
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_tokenises_to_nothing_is_named(tmp_path, capsys):
    model = shutil.copytree(tiny.MODEL, tmp_path / "model")
    tokenizer = tiny.read(model / "tokenizer.json")
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": " #"}, "content": ""}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    rows = json.loads((tiny.DATA / "zsre_eval.json").read_text())[:8]
    rows[5]["ans"] = "#"
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    paths = [f"--config.model.name_or_path={model}", f"--config.dataset.valid_path={tmp_path / 'mine.json'}"]
    said = "mine.json row 5 (edit): the answer '#' tokenises to nothing"
    refused(capsys, said, *tiny.flags(*paths, f"--workdir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def beyond(tmp_path):
    """A model with a tokenizer that has a token more, for the word "beyond", than the model."""
    model = shutil.copytree(tiny.MODEL, tmp_path / "model")
    tokenizer = tiny.read(model / "tokenizer.json")
    tokenizer["model"]["vocab"]["beyond"] = 400
    more = {name: False for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    tokenizer["added_tokens"].append({"id": 400, "content": "beyond", **more})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    return model


@pytest.mark.parametrize("where", ["role=train src", "role=valid ans", "text", "asked"])
def test_tokens_that_the_model_does_not_have_are_named(tmp_path, beyond, capsys, where):
    data, word, more = "zsre", "beyond", []
    rows = {role: tiny.read(tiny.DATA / f"zsre_{name}.json") for role, name in (("train", "train"), ("valid", "eval"))}
    if where.startswith("role="):
        role, field = where.removeprefix("role=").split()
        rows[role][5][field] = word
    elif where == "text":
        (tmp_path / "text.txt").write_text("This lies far beyond. " * 40)
        more = ["--config.eval.further", f"--config.eval.text_path={tmp_path / 'text.txt'}"]
    else:
        data, more = "ripple_effect", ["--config.eval.further"]
        rows = {role: tiny.read(tiny.DATA.parent / data / f"{data}_eval.json") for role in rows}
        rows["valid"][0]["Forgetfulness"] = [{"prompt": f"What is {word} it?", "targets": ["Nothing"]}]
    for role, found in rows.items():
        (tmp_path / f"{role}.json").write_text(json.dumps(found))
        more.append(f"--config.dataset.{role}_path={tmp_path / f'{role}.json'}")
    more += [f"--config.model.name_or_path={beyond}", f"--config.dataset.name={data}"]
    said = f"{beyond}: its tokenizer gives the token id 400, but the model's vocabulary ends at 399; put"
    refused(capsys, said, *tiny.flags(*more, f"--workdir={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_written_over(finished, capsys):
    before = tiny.files(finished)
    other = tiny.flags(f"--workdir={finished}", "--config.seed=1", "--config.editor.rank=4")
    refused(capsys, "holds a finished run with other settings", *other)
    refused(capsys, "(config.editor.rank: 8 there, 4 here; config.seed: 0 there, 1 here)", *other)
    assert tiny.files(finished) == before


def test_a_finished_run_is_shown_and_not_made_again(finished, capsys):
    before = tiny.files(finished)
    assert tiny.call(*tiny.flags(f"--workdir={finished}", "--config.mesh.data=2", "--config.checkpoint.every=7")) == 0
    said = capsys.readouterr().out
    assert "this run is finished" in said
    assert "after editing" in said
    assert "data  " not in said
    assert tiny.files(finished) == before


def damaged(folder):
    path = folder / "edits.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "more", "said"),
    [
        (damaged, [], "edits.safetensors is damaged: the bytes of model.layers."),
        (lambda folder: (folder / "edits.safetensors").unlink(), [], "is missing; --mode=replay makes it"),
        (
            lambda folder: None,
            ["--config.model.edit_modules=('model.layers.2.mlp.gate_proj',)"],
            "holds edits of other layers (for instance model.layers.",
        ),
        (lambda folder: (folder / "config.json").unlink(), None, "holds no run (no config.json)"),
        (lambda folder: (folder / "config.json").write_text("{"), None, "config.json"),
        (
            lambda folder: (folder / "config.json").write_text('{"num_seq": 1}'),
            None,
            "has no checksum (its field",
        ),
    ],
)
def test_edits_that_cannot_be_scored(finished, tmp_path, capsys, harm, more, said):
    folder = shutil.copytree(finished, tmp_path / "run")
    harm(folder)
    before = tiny.files(folder)
    named = [] if more is None else tiny.flags(*more)
    refused(capsys, said, "--mode=eval", f"--workdir={folder}", *named)
    assert tiny.files(folder) == before
