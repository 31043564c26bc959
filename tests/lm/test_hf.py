import json
import os

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emsedit_jax.lm import json_files
from emsedit_jax.lm.families import read_config
from emsedit_jax.lm.hf import load_params, published_modules, stored_dtype, weight_files
from emsedit_jax.lm.model import load_lm, load_tokenizer
from tests.lm.tiny_folder import D, F, tensors, write, write_tokenizer
from tests.refusals import refused

GATE = "model.layers.0.mlp.gate_proj.weight"


def load(folder):
    return load_params(folder, read_config(folder))


def without(name):
    return {other: weight for other, weight in tensors().items() if other != name}


# ---- what is loaded ----


def test_each_tensor_lands_in_its_place_and_linear_weights_are_transposed(tmp_path):
    weights = tensors()
    params = load(write(tmp_path, weights))
    (layer,) = params["layers"]
    at = "model.layers.0."
    expected = {
        "model.embed_tokens.weight": params["embed"]["w"],
        "model.norm.weight": params["norm"]["w"],
        "lm_head.weight": params["head"]["w"],
        f"{at}input_layernorm.weight": layer["norm_attn"]["w"],
        f"{at}post_attention_layernorm.weight": layer["norm_mlp"]["w"],
        **{f"{at}self_attn.{name}_proj.weight": layer["attn"][name]["w"].T for name in "qkvo"},
        **{f"{at}mlp.{name}_proj.weight": layer["mlp"][name]["w"].T for name in ("gate", "up", "down")},
    }
    assert expected.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(expected[name], weight, err_msg=name)
    assert layer["mlp"]["gate"]["w"].shape == (D, F)


def test_biases_are_loaded(tmp_path):
    bias = np.arange(F, dtype=np.float32)
    biases = {GATE.replace("weight", "bias"): bias}
    biases |= {f"model.layers.0.mlp.{name}_proj.bias": np.zeros(n, np.float32) for name, n in (("up", F), ("down", D))}
    params = load(write(tmp_path, tensors() | biases, mlp_bias=True))
    np.testing.assert_array_equal(params["layers"][0]["mlp"]["gate"]["b"], bias)
    with refused("missing", GATE.replace("weight", "bias")):
        load(write(tmp_path, tensors(), mlp_bias=True))


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_hold_what_a_single_file_holds(tmp_path, shards):
    single = load(write(tmp_path / "single", tensors()))
    sharded = load(write(tmp_path / "sharded", tensors(), shards))
    jax.tree.map(np.testing.assert_array_equal, single, sharded)


def test_a_single_file_is_taken_before_shards_that_lie_beside_it(tmp_path):
    new, old = tensors(seed=1), tensors(seed=2)
    write(tmp_path, new)
    write(tmp_path, old, shards=2)
    np.testing.assert_array_equal(load(tmp_path)["norm"]["w"], new["model.norm.weight"])
    (tmp_path / "model-00001-of-00002.safetensors").unlink()  # as transformers: whatever the stale index says
    np.testing.assert_array_equal(load(tmp_path)["norm"]["w"], new["model.norm.weight"])


def test_a_tied_head_is_the_embedding_even_where_the_file_repeats_it(tmp_path):
    tied = load(write(tmp_path / "tied", without("lm_head.weight"), tie_word_embeddings=True))
    repeated = load(write(tmp_path / "repeated", tensors(), tie_word_embeddings=True))
    assert "head" not in tied
    jax.tree.map(np.testing.assert_array_equal, tied, repeated)


def test_a_rope_buffer_of_old_checkpoints_is_passed_over(tmp_path):
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
    jax.tree.map(
        np.testing.assert_array_equal,
        load(write(tmp_path / "old", tensors() | buffer)),
        load(write(tmp_path / "new", tensors())),
    )


@pytest.mark.parametrize(("kept", "name"), [("float32", "float32"), (ml_dtypes.bfloat16, "bfloat16"), ("float16",) * 2])
def test_the_stored_dtype_is_seen_and_read_exactly(tmp_path, kept, name):
    weights = tensors(kept)
    folder = write(tmp_path, weights, shards=2)
    assert stored_dtype(folder) == name
    gate_kv = load(folder)["layers"][0]["mlp"]["gate"]["w"]  # config.json names no dtype: float32
    assert gate_kv.dtype == np.float32
    np.testing.assert_array_equal(gate_kv.T, weights[GATE].astype(np.float32))


def test_the_stored_dtype_is_that_of_most_tensors(tmp_path):
    mixed = tensors(ml_dtypes.bfloat16) | {"model.norm.weight": np.ones(D, np.float32)}
    assert stored_dtype(write(tmp_path, mixed)) == "bfloat16"


def test_names_of_the_linear_maps(tmp_path):
    names = published_modules(read_config(write(tmp_path, tensors())))
    assert len(names) == 7
    assert names["model.layers.0.mlp.gate_proj"] == (0, "mlp.gate")
    assert names["model.layers.0.self_attn.o_proj"] == (0, "attn.o")


# ---- weights that do not fit ----


def test_unknown_missing_and_misshapen_weights_are_reported_together(tmp_path):
    weights = without("model.norm.weight") | {
        "model.layers.0.mlp.extra_proj.weight": np.ones((2, 2), np.float32),
        GATE: np.ones((D, F), np.float32),
    }
    with refused(
        str(tmp_path),
        "unknown model.layers.0.mlp.extra_proj.weight",
        "missing model.norm.weight",
        f"{GATE} has shape [{D}, {F}], expected [{F}, {D}]",
    ):
        load(write(tmp_path, weights))


def test_every_fault_is_named(tmp_path):
    missing = [f"missing {name}" for name in tensors() if name != "model.norm.weight"]
    with refused(*missing):
        load(write(tmp_path, {"model.norm.weight": np.ones(D, np.float32)}))


def test_faults_of_many_layers_are_told_together(tmp_path):
    with refused(
        "missing model.layers.{1-3}.mlp.gate_proj.weight", "missing model.layers.{1-3}.input_layernorm.weight"
    ):
        load(write(tmp_path, tensors(), num_hidden_layers=4))


def test_what_is_wrong_with_config_shards_and_weights_is_told_in_one_error(tmp_path):
    folder = write(tmp_path, without("model.norm.weight") | {GATE: np.ones((F, D), np.int32)}, 2, zebra=1)
    config = json.loads((folder / "config.json").read_text()) | {"hidden_act": "relu2"}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    shards = sorted(folder.glob("*.safetensors"))
    doubled = {name: weight for shard in shards for name, weight in load_file(shard).items() if name.startswith("lm_")}
    for shard in shards:
        save_file(load_file(shard) | doubled, shard)
    with refused("'relu2'", "zebra", "missing model.norm.weight", "is of type I32", "lm_head.weight is in", "and in"):
        load_lm(folder)


def test_more_layers_than_the_config_says(tmp_path):
    second = {name.replace(".0.", ".1."): weight for name, weight in tensors().items() if ".0." in name}
    with refused("unknown model.layers.1.input_layernorm.weight"):
        load(write(tmp_path, tensors() | second))


def test_an_untied_config_wants_a_head(tmp_path):
    with refused("missing lm_head.weight"):
        load(write(tmp_path, without("lm_head.weight")))


def test_weights_of_an_unknown_type(tmp_path):
    assert stored_dtype(write(tmp_path, tensors("int64"))) == "float32"  # of what there might be besides
    with refused(str(tmp_path), f"{GATE} is of type I64, not of F32, BF16, F16"):
        load(tmp_path)


def test_a_file_without_tensors(tmp_path):
    write(tmp_path, {})
    with refused(str(tmp_path), "no weights"):
        stored_dtype(tmp_path)


# ---- files that are not there or not whole ----


def test_a_folder_without_weights(tmp_path):
    with refused(str(tmp_path), "no model.safetensors"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth"]
)
def test_pickled_weights_are_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(b"not even a pickle")
    with refused(str(tmp_path), name, "pickled", "convert them to safetensors"):
        weight_files(tmp_path)


def test_safetensors_beside_pickles_are_taken(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert set(weight_files(write(tmp_path, tensors())).values()) == {tmp_path / "model.safetensors"}


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_named(tmp_path, size):
    path = write(tmp_path, tensors()) / "model.safetensors"
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    with refused(str(path), "not a readable safetensors file", "again"):
        load(tmp_path)


def header(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (2**40).to_bytes(8, "little") + b"{}",
        header(w={"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 8]}) + bytes(8),
        header(w={"dtype": "F32", "shape": [2], "data_offsets": [0, 2**60]}) + bytes(8),
        header(w={"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}) + bytes(8),
        header(w={"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}) + bytes(8),
        header(w=1) + bytes(8),
    ],
)
def test_a_header_that_cannot_be_is_refused_before_memory_is_taken(tmp_path, content):
    path = write(tmp_path, tensors()) / "model.safetensors"
    path.write_bytes(content)
    with refused(str(path), "not a readable safetensors file"):
        load(tmp_path)


def test_weights_of_a_type_that_is_not_read_are_named(tmp_path):
    with refused(str(tmp_path), f"{GATE} is of type I32, not of F32, BF16, F16"):
        load(write(tmp_path, tensors() | {GATE: np.ones((F, D), np.int32)}))


def test_a_truncated_shard_is_named(tmp_path):
    path = write(tmp_path, tensors(), shards=2) / "model-00002-of-00002.safetensors"
    os.truncate(path, 100)
    with refused(str(path), "not a readable safetensors file"):
        load(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    (write(tmp_path, tensors(), shards=3) / "model-00002-of-00003.safetensors").unlink()
    with refused(str(tmp_path), "model-00002-of-00003.safetensors", "missing"):
        load(tmp_path)


def test_a_shard_that_lacks_what_the_index_promises(tmp_path):
    write(tmp_path, tensors(), shards=2)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    files = sorted(set(content["weight_map"].values()))
    content["weight_map"][GATE] = next(file for file in files if file != content["weight_map"][GATE])
    index.write_text(json.dumps(content))
    with refused("unreadable", GATE):
        load(tmp_path)


@pytest.mark.parametrize(
    "stray", ["../secret.safetensors", "/etc/secret.safetensors", "sub/model.safetensors", "..", ""]
)
def test_an_index_cannot_point_outside_the_folder(tmp_path, stray):
    write(tmp_path, tensors(), shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {GATE: stray}}))
    with refused("model.safetensors.index.json", repr(stray), "inside the folder"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_named(tmp_path, content):
    tmp_path.joinpath("model.safetensors.index.json").write_text(content)
    with refused(str(tmp_path / "model.safetensors.index.json"), "cannot be read"):
        weight_files(tmp_path)


def test_files_of_a_tokenizer_longer_than_any_are_not_read(tmp_path, monkeypatch):
    write_tokenizer(write(tmp_path, tensors()))
    monkeypatch.setattr(json_files, "MOST_BYTES", (tmp_path / "tokenizer.json").stat().st_size - 1)
    with refused(str(tmp_path / "tokenizer.json"), "longer than any"):
        load_tokenizer(tmp_path)
