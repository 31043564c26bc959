"""GGUF -> Hugging Face directory: weights equal hand-packed ones, and what is not understood is refused."""

import json

import numpy as np
import pytest
import safetensors.numpy

from emsedit_jax.errors import InputError
from emsedit_jax.lm import gguf_files, gguf_tables
from tests.lm.tiny_gguf import HEADS, E, interleaved, write_gguf


def test_weights_are_exact_and_named_as_hugging_face_does(tmp_path):
    expected = write_gguf(tmp_path / "m.gguf")
    gguf_files.convert(tmp_path / "m.gguf", tmp_path)
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], weight, err_msg=name)


def test_config_has_hugging_face_fields(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    gguf_files.convert(tmp_path / "m.gguf", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,  # the file holds float32's 9.99999974e-06
        "rope_theta": 50000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    assert {name: config[name] for name in expected} == expected
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_untied_head_becomes_lm_head(tmp_path):
    expected = write_gguf(tmp_path / "m.gguf", extra="output")
    gguf_files.convert(tmp_path / "m.gguf", tmp_path)
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(weights["lm_head.weight"], expected["lm_head.weight"])
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False


def test_unpermute_undoes_interleaving_of_the_halves_of_a_head():
    rows = np.arange(HEADS * E * 3, dtype=np.float32).reshape(HEADS * E, 3)
    np.testing.assert_array_equal(gguf_files.unpermute(interleaved(rows, HEADS), HEADS), rows)
    one_head = np.array([[0.0], [2.0], [1.0], [3.0]], np.float32)  # halves (0, 1) and (2, 3), interleaved
    np.testing.assert_array_equal(gguf_files.unpermute(one_head, 1), [[0.0], [1.0], [2.0], [3.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "blk.1.attn_v"}, r"missing \['blk.1.attn_v.weight'\]"),
        ({"extra": "rope_freqs"}, r"unknown \['rope_freqs.weight'\]"),
        ({"fields": {"llama.rope.scaling.factor": 8.0}}, r"unknown \['rope.scaling.factor'\]"),
        ({"fields": {"llama.block_count": 3}}, r"missing \['blk.2.attn_k.weight'"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, change, message):
    write_gguf(tmp_path / "m.gguf", **change)
    with pytest.raises(InputError, match=message):
        gguf_files.convert(tmp_path / "m.gguf", tmp_path)


def test_other_architecture_is_refused():
    with pytest.raises(InputError, match="architecture 'gemma4'; understood are 'llama', 'gemma3'"):
        gguf_tables.hf_config({"general.architecture": "gemma4"}, tied=True)


@pytest.mark.parametrize("content", [b"", b"not a gguf file at all, but long enough to be read as one"])
def test_other_file_is_refused(tmp_path, content):
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.gguf cannot be read as a GGUF file"):
        gguf_files.convert(tmp_path / "m.gguf", tmp_path)


@pytest.mark.parametrize("error", [MemoryError(), NameError("a slip of ours")])
def test_what_is_not_the_file_s_fault_is_not_told_as_such(tmp_path, monkeypatch, error):
    def fails(_):
        raise error

    write_gguf(tmp_path / "m.gguf")
    monkeypatch.setattr(gguf_files, "GGUFReader", fails)
    with pytest.raises(type(error)):
        gguf_files.convert(tmp_path / "m.gguf", tmp_path)


def test_file_cut_short_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    for keep in (100, 1000, len(whole) - 100):
        (tmp_path / "m.gguf").write_bytes(whole[:keep])
        with pytest.raises(InputError, match="cannot be read as a GGUF file"):
            gguf_files.convert(tmp_path / "m.gguf", tmp_path)
