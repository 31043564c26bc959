"""A run that was broken off goes on with what it was begun with, and with nothing else that its stages take in."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emsedit_jax.meta import trajectory
from emsedit_jax.run import networks, scoring
from emsedit_jax.run.examine import Examined
from emsedit_jax.run.prepare import prepare
from tests.faults.test_broken_off import Killed, calls, die
from tests.quick_compiles import quick_compiles as quick_compiles
from tests.run import tiny
from tests.run.test_bad_input import refused


class Begun(NamedTuple):
    """A run that died after its first edit batch, and what it takes in."""

    folder: Path
    flags: list[str]


def save_networks(path, flags, seed):
    """Untrained networks of that seed, as a run leaves its own."""
    run = prepare(tiny.command(*flags).config, training=False)
    networks.save(path, run.editor, trajectory.init(run.editor, seed, None), run.base)


@pytest.fixture(scope="module")
def begun(tmp_path_factory, quick_compiles):
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(tiny.MODEL, folder / "model")
    shutil.copy(tiny.DATA.parent / "ripple_effect" / "ripple_effect_eval.json", folder / "facts.json")
    (folder / "text.txt").write_text("The river runs slowly past the old town. " * 20)
    rows = [{"sentence": text, "label": m % 2} for m, text in enumerate(["bad", "good", "awful"])]
    (folder / "sst2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [
        f"--config.model.name_or_path={folder / 'model'}",
        "--config.dataset.name=ripple_effect",
        f"--config.dataset.valid_path={folder / 'facts.json'}",
        "--config.dataset.n_edits=2",
        "--config.checkpoint.every=1",
        "--config.eval.further",
        f"--config.eval.text_path={folder / 'text.txt'}",
        f"--config.eval.ability_path={folder}",
        "--config.eval.ability_tasks=('sst2',)",
    ]
    save_networks(folder / "networks.safetensors", flags, 0)
    flags = tiny.flags(*flags, f"--config.editor.load={folder / 'networks.safetensors'}", f"--workdir={folder / 'run'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "ask_all", lambda *args, **more: Examined({}, ()))  # its programs take long to compile
        calls(patch, trajectory, "edit_batch", 2, die)
        with pytest.raises(Killed):
            tiny.call(*flags)
    return Begun(folder, flags)


def edit_json(path, change):
    rows = tiny.read(path)
    change(rows)
    path.write_text(json.dumps(rows))


def other_config(folder):
    edit_json(folder / "model" / "config.json", lambda config: config.update(rope_theta=400_000.0))


def other_tokenizer(folder):
    edit_json(folder / "model" / "tokenizer.json", lambda found: found.update(normalizer={"type": "Lowercase"}))


def other_bit(folder):
    path = folder / "model" / "model.safetensors"
    weights = {name: np.array(array) for name, array in load_file(path).items()}
    weights["model.layers.2.mlp.up_proj.weight"].view(np.uint32)[3, 5] ^= 1  # which bfloat16 does not have
    save_file(weights, path)


def other_answer(folder):
    edit_json(folder / "facts.json", lambda rows: rows[1].update(target_new="Something else"))


def other_question(folder):
    def change(rows):
        rows[0]["Subject_Aliasing"][1]["targets"] = ["Somebody else"]

    edit_json(folder / "facts.json", change)


def other_text(folder):
    path = folder / "text.txt"
    path.write_text(path.read_text().replace("slowly", "fast", 1))


def other_ability(folder):
    path = folder / "sst2.jsonl"
    path.write_text(path.read_text().replace('"label": 1', '"label": 0'))


def other_networks(folder):
    flags = [f"--config.dataset.valid_path={tiny.DATA / 'zsre_eval.json'}"]
    save_networks(folder / "networks.safetensors", flags, 1)


@pytest.mark.parametrize(
    ("change", "file", "said"),
    [
        (other_bit, "model/model.safetensors", "the model's weights"),
        (other_config, "model/config.json", "the model's config.json"),
        (other_tokenizer, "model/tokenizer.json", "the tokenizer, the facts' tokens, the running text's tokens"),
        (other_answer, "facts.json", "the facts, the facts' tokens"),
        (other_question, "facts.json", "the facts' further questions"),
        (other_text, "text.txt", "the running text's tokens (--config.eval.text_path)"),
        (other_ability, "sst2.jsonl", "the items of ability (--config.eval.ability_path)"),
        (other_networks, "networks.safetensors", "the networks (--config.editor.load)"),
    ],
)
def test_what_is_something_else_now_is_named(begun, change, file, said, capsys):
    path = begun.folder / file
    before, left = path.read_bytes(), tiny.files(begun.folder / "run")
    change(begun.folder)
    assert path.read_bytes() != before
    try:
        refused(capsys, f"not the same as when this run was begun: {said}", *begun.flags)
    finally:
        path.write_bytes(before)
    assert tiny.files(begun.folder / "run") == left


def test_with_all_given_back_it_goes_on(begun, monkeypatch):
    done = calls(monkeypatch, trajectory, "edit_batch", 1, die)
    with pytest.raises(Killed):
        tiny.call(*begun.flags)
    assert done == [1]
