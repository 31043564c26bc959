"""`--mode=edit` and `--mode=generate` from the command line, on the tiny recorded Llama."""

import io
import json
import sys

import pytest

from emsedit_jax.run import cli
from emsedit_jax.session.session import EditSession
from tests.run import tiny
from tests.session.small import FACTS

CONFIG = [flag for flag in tiny.flags(editor="ultraedit") if not flag.startswith("--config.dataset.train_path")]


@pytest.fixture
def table(tmp_path):
    """A file of facts."""
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    return path


@pytest.fixture
def mine(tmp_path, table, capsys):
    """A folder with these facts edited in."""
    assert tiny.call(*CONFIG, "--mode=edit", f"--facts={table}", f"--workdir={tmp_path / 'mine'}") == 0
    capsys.readouterr()
    return tmp_path / "mine"


def test_facts_are_edited_in_and_shown(tmp_path, table, capsys):
    assert tiny.call(*CONFIG, "--mode=edit", f"--facts={table}", f"--workdir={tmp_path / 'mine'}") == 0
    said = capsys.readouterr().out
    for fact in FACTS:
        assert f"{fact['prompt']}  -> {fact['answer']}" in said
    assert "before" in said
    assert len(EditSession.load(tmp_path / "mine").facts) == 3


def test_more_facts_want_a_yes(mine, tmp_path, capsys, monkeypatch):
    more = tmp_path / "more.csv"
    more.write_text("prompt,answer\nWater boils at,50 degrees\n")
    again = ("--mode=edit", f"--facts={more}", f"--workdir={mine}")
    before = tiny.files(mine)
    assert tiny.call(*again) == cli.BAD_INPUT
    assert "holds 3 facts; add these 1 to them? Say so with --yes" in capsys.readouterr().err

    monkeypatch.setattr(sys, "stdin", Typed("n\n"))
    assert tiny.call(*again) == cli.BAD_INPUT
    assert "nothing was changed" in capsys.readouterr().err
    assert tiny.files(mine) == before

    monkeypatch.setattr(sys, "stdin", Typed("y\n"))
    assert tiny.call(*again) == 0
    assert tiny.call(*again[:1], f"--facts={tmp_path / 'facts.jsonl'}", again[2], "--yes") == 0
    assert len(EditSession.load(mine).facts) == 7
    assert "3 of these facts are in force there already" in capsys.readouterr().out


def test_how_far_it_is_and_what_is_left_are_told(tmp_path, table, capsys):
    small = [*CONFIG, "--config.dataset.n_edits=1"]
    assert tiny.call(*small, "--mode=edit", f"--facts={table}", f"--workdir={tmp_path / 'mine'}") == 0
    assert "batch 2 of 3 is written; all are kept once the last one is" in capsys.readouterr().out
    undo = ["--mode=undo", f"--workdir={tmp_path / 'mine'}"]
    assert tiny.call(*undo, "--batches=1-") == 0
    assert "no facts are in force any more" in capsys.readouterr().out
    assert tiny.call(*undo, "--batches=1") == cli.BAD_INPUT
    assert "1 names no batch in force: none is" in capsys.readouterr().err
    assert tiny.call("--mode=eval", *undo[1:]) == cli.BAD_INPUT
    assert "no facts are in force: edit some first (--mode=edit)" in capsys.readouterr().err
    assert tiny.call("--mode=edit", f"--facts={table}", *undo[1:]) == 0  # there is nothing to ask


def test_an_exported_model_is_no_workdir(mine, tmp_path, capsys):
    assert tiny.call("--mode=export", f"--workdir={mine}", f"--to={tmp_path / 'exported'}") == 0
    assert tiny.call("--mode=generate", f"--workdir={tmp_path / 'exported'}", "--prompt=x") == cli.BAD_INPUT
    assert "is a Hugging Face model, not the folder of a run" in capsys.readouterr().err


class Typed(io.StringIO):
    """A keyboard."""

    def isatty(self) -> bool:
        return True


def test_a_run_s_folder_is_not_edited_by_hand(tmp_path, table, capsys):
    tiny.train(tmp_path / "run")
    capsys.readouterr()
    assert tiny.call("--mode=edit", f"--facts={table}", f"--workdir={tmp_path / 'run'}", "--yes") == cli.BAD_INPUT
    assert "holds no edits by hand" in capsys.readouterr().err


def test_a_config_is_of_a_new_session(mine, table, capsys):
    assert tiny.call(*CONFIG, "--mode=edit", f"--facts={table}", f"--workdir={mine}", "--yes") == cli.BAD_INPUT
    assert "leave --config out" in capsys.readouterr().err


def test_generate_shows_both_sides(mine, capsys, monkeypatch):
    assert tiny.call("--mode=generate", f"--workdir={mine}", "--prompt=The Eiffel Tower is in", "--prompt=Water") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["before", "after", "before", "after"]
    before, after = (line.split(maxsplit=1)[1] for line in lines[-4:-2])
    assert before.startswith("The Eiffel Tower is in")
    assert before != after
    monkeypatch.setattr(sys, "stdin", io.StringIO("The Eiffel Tower is in\n\nnot read\n"))
    assert tiny.call("--mode=generate", f"--workdir={mine}") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == lines[-4:-2]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert tiny.call("--mode=generate", f"--workdir={mine}") == cli.BAD_INPUT
    assert "there is no prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (["--mode=edit"], "--mode=edit needs --facts=FILE"),
        (["--mode=edit", "--facts=nowhere.csv"], "no such file"),
        (["--facts=x.csv", *CONFIG], "--facts=x.csv is the file of facts to write: it needs --mode=edit"),
        (["--mode=generate"], "--mode=generate needs --workdir=FOLDER"),
        (["--mode=generate", "--workdir=x", *CONFIG], "leave --config out"),
        (["--mode=generate", "--workdir=x"], "holds no run"),
        (["--prompt=x", *CONFIG], "needs --mode=generate"),
        (
            ["--mode=generate", "--workdir=x", "--coordinator=a:1", "--processes=2", "--process=0"],
            "work of one process",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(args, fault, capsys):
    assert tiny.call(*args) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert fault in said
    assert said.count("\n") == 1
