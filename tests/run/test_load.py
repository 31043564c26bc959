"""Networks of a finished run in another one, from the command line."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emsedit_jax.lm import model
from tests.run import tiny
from tests.run.test_bad_input import refused


@pytest.mark.parametrize("named", ["folder", "file"])
def test_loaded_networks_edit_as_those_of_the_run_that_trained_them(finished, tmp_path, named, capsys):
    given = finished if named == "folder" else finished / "hypernet.safetensors"
    again = tiny.train(tmp_path / "again", f"--config.editor.load={given}", "--config.dataset.train_path=")
    assert f"networks {finished / 'hypernet.safetensors'}, not trained any further" in capsys.readouterr().out
    first = tiny.read(finished / "summary.json")
    assert again["digests"] == first["digests"]
    assert again["scores"] == first["scores"]
    assert again["seconds"]["train"] == 0
    assert [row["phase"] for row in tiny.rows(tmp_path / "again")] == ["edit", "edit"]
    mine, theirs = (load_file(folder / "hypernet.safetensors") for folder in (finished, tmp_path / "again"))
    assert sorted(mine) == sorted(theirs)
    for name, array in mine.items():
        np.testing.assert_array_equal(theirs[name], array)


def test_loaded_networks_edit_other_facts(finished, tmp_path):
    more = (f"--config.editor.load={finished}", "--config.dataset.rows=8:20", "--config.num_seq=3")
    summary = tiny.train(tmp_path / "other", *more)
    assert summary["edits"] == 12
    assert summary["digests"] != tiny.read(finished / "summary.json")["digests"]


def test_no_run_is_begun_with_networks_that_do_not_fit(finished, tmp_path, capsys):
    def refuse(said, *more, editor="emsedit"):
        flags = tiny.flags(*more, f"--config.editor.load={finished}", f"--workdir={tmp_path / 'run'}", editor=editor)
        refused(capsys, said, *flags)
        assert not (tmp_path / "run").exists()

    refuse(
        "was trained with editor=emsedit, this run has editor=rledit; set --config=FILE:editor=NAME as it",
        editor="rledit",
    )
    refuse(
        "was trained with rank=[8, 4], this run has rank=[16, 8]; set --config.editor.rank as it was",
        "--config.editor.rank=16",
    )
    refuse(
        "was trained with networks=2, this run has networks=1; set --config.editor.iters (a network a step;",
        "--config.editor.iters=1",
    )
    refuse(
        "was trained with networks=2, this run has networks=1; set --config.editor.iters (a network a step;",
        "--config.num_seq=1",
    )
    refuse(
        "this run has sites=['model.layers.4.mlp.gate_proj']; set --config.model",
        f"{tiny.MODULES}('model.layers.4.mlp.gate_proj',)",
    )
    other = shutil.copytree(tiny.MODEL, tmp_path / "model")
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * array for name, array in weights.items()}, other / "model.safetensors")
    refuse(f"was trained on {tiny.MODEL} (weights ", f"--config.model.name_or_path={other}")


def test_the_same_model_under_another_name_is_the_same(finished, tmp_path):
    other = shutil.copytree(tiny.MODEL, tmp_path / "model")
    more = (f"--config.editor.load={finished}", f"--config.model.name_or_path={other}")
    assert tiny.train(tmp_path / "run", *more)["digests"] == tiny.read(finished / "summary.json")["digests"]


def test_what_is_no_file_of_networks_is_refused(finished, tmp_path, capsys):
    def refuse(said, given):
        flags = tiny.flags(f"--config.editor.load={given}", f"--workdir={tmp_path / 'run'}")
        refused(capsys, said, *flags)
        assert not (tmp_path / "run").exists()

    refuse("does not hold networks of this program (format 'emsedit-jax edits 1')", finished / "edits.safetensors")
    refuse("is damaged, or no file of networks", finished / "summary.json")
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray((finished / "hypernet.safetensors").read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    refuse("damaged.safetensors is damaged: the bytes of net", damaged)


def test_missing_networks_are_told_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    def load(*_, **__):
        raise AssertionError("the model is loaded before the networks are looked for")

    monkeypatch.setattr(model, "load_lm", load)
    for given, path in ((tmp_path, tmp_path / "hypernet.safetensors"), (tmp_path / "nowhere", tmp_path / "nowhere")):
        flags = tiny.flags(f"--config.editor.load={given}", f"--workdir={tmp_path / 'run'}")
        refused(capsys, f"{path} is missing: --config.editor.load={given} must name", *flags)
    assert list(tmp_path.iterdir()) == []


def test_an_editor_without_networks_has_none_to_load(finished, tmp_path, capsys):
    flags = tiny.flags(f"--config.editor.load={finished}", f"--workdir={tmp_path / 'run'}", editor="ultraedit")
    refused(capsys, "--config.editor.load: ultraedit has no such field, but emsedit", *flags)
    tiny.train(tmp_path / "ultraedit", editor="ultraedit")
    flags = tiny.flags(f"--config.editor.load={tmp_path / 'ultraedit'}", f"--workdir={tmp_path / 'run'}")
    refused(capsys, f"{tmp_path / 'ultraedit' / 'hypernet.safetensors'} is missing", *flags)


def test_scoring_again_needs_no_networks(finished, tmp_path):
    source = shutil.copytree(finished, tmp_path / "source")
    tiny.train(tmp_path / "again", f"--config.editor.load={source}")
    shutil.rmtree(source)
    assert tiny.call("--mode=eval", f"--workdir={tmp_path / 'again'}") == 0
