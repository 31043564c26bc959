"""An edited model written back: what is changed, what is copied, and what is refused."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from emsedit_jax.edit.sites import resolve
from emsedit_jax.lm.export import export
from emsedit_jax.lm.model import load_lm
from tests.lm.tiny_folder import D, F, tensors, write, write_tokenizer
from tests.refusals import refused

PATTERNS = ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"]
IDS = np.array([[1, 2, 3, 4]])


def made(folder, dtype="float32", shards=1):
    """(source folder, model, sites, edits)."""
    write(folder, tensors(dtype), shards)
    write_tokenizer(folder)
    (folder / "generation_config.json").write_text("{}")
    (folder / "README.md").write_text("a card")
    (folder / "run.py").write_text("print()")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ tool }}")
    (folder / "asset.json").write_text("{}")
    lm = load_lm(folder)
    sites, rng = resolve(lm.config, PATTERNS), np.random.default_rng(0)
    deltas = tuple(jnp.asarray(rng.normal(size=(len(group.layers), group.k, group.v)), jnp.float32) for group in sites)
    return folder, lm, sites, deltas


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
def test_edited_weights_are_rounded_once_and_the_others_stay(tmp_path, dtype, shards):
    source, lm, sites, deltas = made(tmp_path / "source", dtype, shards)
    target = export(source, tmp_path / "out" / "edited", lm.config, sites, deltas)
    names = sorted(file.name for file in source.glob("*.safetensors*"))
    assert names == sorted(file.name for file in target.glob("*.safetensors*"))
    (gate, down) = (np.asarray(delta[0]) for delta in deltas)
    edits = {"model.layers.0.mlp.gate_proj.weight": gate.T, "model.layers.0.mlp.down_proj.weight": down.T}
    for file in source.glob("*.safetensors"):
        before, after = load_file(file), load_file(target / file.name)
        assert before.keys() == after.keys()
        for name, weight in before.items():
            expected = (weight.astype(np.float32) + edits[name]).astype(dtype) if name in edits else weight
            assert after[name].dtype == weight.dtype
            np.testing.assert_array_equal(after[name], expected, err_msg=name)
        with safe_open(target / file.name, "numpy") as written:
            assert written.metadata() == {"format": "pt"}


def test_what_is_written_is_the_edited_model(tmp_path):
    source, lm, sites, deltas = made(tmp_path / "source")
    again = load_lm(export(source, tmp_path / "edited", lm.config, sites, deltas))
    layer = lm.params["layers"][0]
    layer["mlp"] = {
        **layer["mlp"],
        "gate": {"w": layer["mlp"]["gate"]["w"] + deltas[0][0]},
        "down": {"w": layer["mlp"]["down"]["w"] + deltas[1][0]},
    }
    np.testing.assert_allclose(again.logits(IDS, IDS * 0 + 1), lm.logits(IDS, IDS * 0 + 1), atol=1e-5)
    assert deltas[0].shape[1:] == (D, F)
    assert again.tokenizer("w4 w7")["input_ids"] == [4, 7]


def test_small_files_come_along_and_nothing_that_runs(tmp_path):
    source, lm, sites, deltas = made(tmp_path / "source")
    target = export(source, tmp_path / "edited", lm.config, sites, deltas)
    assert sorted(file.name for file in target.iterdir()) == [
        *("README.md", "SHA256SUMS", "additional_chat_templates", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json"),
    ]
    assert json.loads((target / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    (tmp_path / "plain").mkdir()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").rmdir()
    assert len({file.stat().st_mode for file in target.iterdir() if file.is_file()}) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["edited", "source"]


def test_what_a_killed_export_left_is_cleared_away(tmp_path):
    source, lm, sites, deltas = made(tmp_path / "source")
    (tmp_path / ".edited.partial-0123abcd").mkdir()
    (tmp_path / ".edited.partial-0123abcd" / "model.safetensors").write_bytes(b"half")
    export(source, tmp_path / "edited", lm.config, sites, deltas)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["edited", "source"]


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(tmp_path):
    source, lm, sites, deltas = made(tmp_path / "source")
    (tmp_path / "edited").mkdir()
    export(source, tmp_path / "edited", lm.config, sites, deltas)
    before = (tmp_path / "edited" / "model.safetensors").read_bytes()
    with refused(str(tmp_path / "edited"), "is there already"):
        export(source, tmp_path / "edited", lm.config, sites, deltas)
    with refused("is there already"):
        export(source, source / "config.json", lm.config, sites, deltas)
    assert (tmp_path / "edited" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "fault",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_fault_while_writing_leaves_nothing(tmp_path, monkeypatch, fault):
    source, lm, sites, deltas = made(tmp_path / "source")

    def full(*_, **__):
        raise fault

    monkeypatch.setattr("emsedit_jax.disk.save_file", full)
    with refused("cannot write", "no space left on device"):
        export(source, tmp_path / "edited", lm.config, sites, deltas)
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_a_source_without_the_edited_weights_is_refused(tmp_path):
    source, lm, sites, deltas = made(tmp_path / "source")
    renamed = sites[0]._replace(names=("model.layers.7.mlp.gate_proj",))
    with refused("have no model.layers.7.mlp.gate_proj.weight"):
        export(source, tmp_path / "edited", lm.config, (renamed, *sites[1:]), deltas)
    assert [file.name for file in tmp_path.iterdir()] == ["source"]
