import time
from pathlib import Path

import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import cli
from emsedit_jax.run.command import Door
from emsedit_jax.run.workdir import open_workdir

ROOT = Path(__file__).parents[2]
QUICKSTART = "--config=configs/quickstart.py"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def read(*args):
    return cli.read(["launch.py", *args])


def test_overrides_reach_the_config():
    sites = "--config.model.edit_modules=('a.{1,2}.b', 'c')"
    command = read(QUICKSTART, "--config.num_seq=3", "--config.dataset.n_edits=7", "--config.editor.lr=2e-3", sites)
    assert (command.config.num_seq, command.config.dataset.n_edits, command.config.editor.lr) == (3, 7, 2e-3)
    assert command.config.model.edit_modules == ("a.{1,2}.b", "c")
    assert command.mode == "train"


def test_flags_may_stand_apart_from_their_values_and_booleans_alone():
    booleans = ["--config.dataset.shuffle", "--noconfig.compile_cache"]
    command = read("--config", "configs/quickstart.py", "--config.num_seq", "3", *booleans)
    assert (command.config.num_seq, command.config.dataset.shuffle, command.config.compile_cache) == (3, True, False)


def test_the_editor_is_picked_behind_the_colon():
    command = read(f"{QUICKSTART}:editor=ultraedit", "--config.editor.iters=2")
    assert (command.config.editor.name, command.config.editor.iters) == ("ultraedit", 2)


def test_default_workdir_is_new_and_not_made_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "noon")
    config = f"--config={ROOT / 'configs/quickstart.py'}"
    monkeypatch.chdir(tmp_path)
    assert read(config).workdir == Path("runs/quickstart-noon")
    assert not Path("runs").exists()
    Path("runs/quickstart-noon").mkdir(parents=True)
    assert read(config).workdir == Path("runs/quickstart-noon-2")


def test_eval_takes_the_config_of_the_run(tmp_path):
    config = read(QUICKSTART, "--config.num_seq=3").config
    open_workdir(tmp_path, config)
    command = read("--mode=eval", f"--workdir={tmp_path}")
    assert command.mode == "eval"
    assert command.config.to_dict() == config.to_dict()
    assert command.workdir == tmp_path


def test_a_comparison_takes_several_runs(monkeypatch):
    command = read("--mode=compare", "--workdir=runs/one, runs/two,runs/three", "--to=there")
    assert (command.mode, command.to) == ("compare", Path("there"))
    assert command.runs == (Path("runs/one"), Path("runs/two"), Path("runs/three"))
    monkeypatch.setattr(time, "strftime", lambda _: "noon")
    assert read("--mode=compare", "--workdir=runs/one,runs/two").to == Path("runs/compare-noon")


def test_a_page_needs_no_config_and_reads_no_facts(monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "noon")
    command = read("--mode=serve")
    assert (command.mode, command.workdir, command.door) == ("serve", Path("runs/serve-noon"), Door("127.0.0.1", 8765))
    assert not command.config
    door = ["--host=::1", "--port=0", "--token=abcdefghijklmnop"]
    command = read("--mode=serve", "--config=configs/zsre_smollm2.py", "--workdir=there", *door)
    assert (command.workdir, command.door) == (Path("there"), Door("::1", 0, "abcdefghijklmnop"))
    assert (command.config.dataset.name, command.config.dataset.n_edits) == ("worldfacts", 10)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "--config=FILE is missing"),
        (["--config=configs/quickstrat.py"], "Did you mean 'configs/quickstart.py'"),
        (["--config=configs"], "--config=configs is a folder; name a file in it"),
        (["--config="], "--config names no file"),
        ([QUICKSTART, "--config.editor.eta=1"], "eta, the length of an edit step, is --config.editor.lr"),
        ([QUICKSTART, "--config.editor.loc_coef=1"], "emsedit has no such field, but rledit, malmen, mend have;"),
        ([QUICKSTART, "--config.editor.meta_lrr=1"], "Did you mean 'editor.meta_lr'"),
        ([QUICKSTART, "--config.numseq=3"], "--config.numseq: there is no such field in this config. Did you mean"),
        ([QUICKSTART, "--config.dataset.nedits=3"], "Did you mean 'dataset.n_edits'"),
        ([QUICKSTART, "--config.train.update_evry=batch"], "Did you mean 'train.update_every'"),
        ([QUICKSTART, "--config.train.schedule=cosin"], "--config.train.schedule=cosin: must be one of constant"),
        ([QUICKSTART, "--config.dataset.rows=9:3"], "--config.dataset.rows=9:3: must be a range of rows"),
        ([QUICKSTART, "--config.editor.load"], "--config.editor.load has no value; write --config.editor.load=VALUE"),
        ([QUICKSTART, "--config.num_seq.x=3"], "--config.num_seq.x: there is no such field"),
        ([QUICKSTART, "--config.dataset={}"], "--config.dataset is a group of fields"),
        ([QUICKSTART, "--config.num_seq=many"], "--config.num_seq=many: must be a whole number of at least 1."),
        ([QUICKSTART, "--config.num_seq=0"], "--config.num_seq=0: must be a whole number of at least 1."),
        ([QUICKSTART, "--config.compile_cache=maybe"], "--config.compile_cache=maybe: must be true or false."),
        ([QUICKSTART, "--config.num_seq"], "--config.num_seq has no value; write"),
        ([QUICKSTART, "--config.model.edit_modules=a.{1,2}"], "several as a quoted tuple"),
        (["--config.num_seq=3", QUICKSTART], "--config=FILE must stand before"),
        (["--config.num_seq=3"], "name the file before it with --config=FILE"),
        ([f"{QUICKSTART}:editor=ultraedt"], "Did you mean 'ultraedit'"),
        ([f"{QUICKSTART}:rank=3"], "unknown config argument 'rank'"),
        ([QUICKSTART, "--wrkdir=x"], "--wrkdir: there is no such flag. Did you mean 'workdir'?"),
        ([QUICKSTART, "--workdir="], "--workdir is empty"),
        ([QUICKSTART, "--mode=evl"], "must be one of train, edit, generate, serve, eval, export, compare"),
        ([QUICKSTART, "train"], "'train' is not a flag"),
        (["--mode=eval"], "--mode=eval needs --workdir=FOLDER"),
        (["--mode=report"], "--mode=report needs --workdir=FOLDER, the run that is meant"),
        (["--mode=report", "--workdir=x", QUICKSTART], "--mode=report takes runs as they were made"),
        (["--mode=report", "--workdir=x", "--to=y"], "--to=y is where something new goes"),
        (["--mode=eval", "--workdir=configs"], "configs holds no run"),
        ([QUICKSTART, "--to=there"], "it needs --mode=export or --mode=compare"),
        (["--mode=eval", f"--workdir={'long' * 100}"], "name too long"),
        (["--mode=compare"], "--mode=compare needs --workdir=FOLDER,FOLDER,... of two finished runs or more"),
        (["--mode=compare", "--workdir=one,"], "of two finished runs or more"),
        (["--mode=compare", "--workdir=one,two", "--to= "], "--to is empty"),
        (["--mode=compare", "--workdir=one,two", QUICKSTART], "leave --config out"),
        (["--mode=compare", "--workdr=one,two"], "Did you mean 'workdir'"),
        (["--mode=comapre", "--workdir=one,two"], "Did you mean 'compare'"),
        (["--flagfile=nowhere"], "nowhere"),
        ([QUICKSTART, "--port=80"], "--port=80 is the port of a page: it needs --mode=serve"),
        (["--mode=serve", "--port=65536"], "--port=65536: must be a number from 1 to 65535, or 0"),
        (["--mode=serve", "--port=http"], "--port=http: must be a whole number."),
        (["--mode=edit", "--yes=maybe"], "--yes=maybe: must be true or false."),
        (["--mode=undo", "--batches"], "--batches has no value; write --batches=VALUE"),
        (["--mode=serve", "--host= "], "--host is empty"),
        (["--mode=serve", "--token="], "--token must be 16 to 200 letters"),
        (["--mode=serve", "--token=short"], "--token must be 16 to 200 letters"),
        (["--mode=serve", "--token=sixteen letters; Path=/"], "--token must be 16 to 200 letters"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(args, said):
    with pytest.raises(InputError) as raised:
        read(*args)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "it defines no get_config(), so it is no config"),
        ("def get_config():\n    return {}", "must return a ml_collections.ConfigDict"),
        ("def get_config():\n    raise ValueError('too\\nlong')", "line 2: ValueError: too"),
        ("import nowhere_to_be_found", "line 1: ModuleNotFoundError"),
        ("def get_config():\n    open('/nowhere/at/all')", "line 2: FileNotFoundError"),
        (
            "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'num_sq': 1})",
            "--config.num_sq: there is no such field. Did you mean 'num_seq'",
        ),
    ],
)
def test_mistakes_in_a_config_file(tmp_path, text, said):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(InputError) as raised:
        read(f"--config={file}")
    assert said in str(raised.value)


def test_exit_codes(capsys):
    def wrong(_):
        raise InputError("first\nsecond")

    def stopped(_):
        raise KeyboardInterrupt

    assert cli.exit_code(lambda _: None, []) == 0
    assert cli.exit_code(wrong, []) == 2
    assert cli.exit_code(stopped, []) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: first second\ninterrupted\n"


def test_a_defect_of_the_program_is_not_hidden():
    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.exit_code(broken, [])
