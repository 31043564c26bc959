"""The real model: fetched on first use (93 MB), kept in the cache, right in its tokens and weights."""

import json

import numpy as np
import pytest
import transformers
from safetensors import safe_open

from emsedit_jax.lm import assets


@pytest.fixture(scope="module")
def home():
    return assets.resolve("smollm2-135m", progress=print)


@pytest.fixture(scope="module")
def tokenizer(home):
    return transformers.AutoTokenizer.from_pretrained(home)


def test_shape_of_the_model(home):
    config = json.loads((home / "config.json").read_text())
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    assert [config[name] for name in sizes] == [30, 576, 1536, 9, 3]
    assert (config["vocab_size"], config["rope_theta"], config["rms_norm_eps"]) == (49152, 100_000.0, 1e-5)
    assert config["tie_word_embeddings"] is True
    with safe_open(home / "model.safetensors", "numpy") as weights:
        assert len(weights.keys()) == 2 + 30 * 9


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("The capital of France is", [504, 3575, 282, 4649, 314]),
        (" Paris", [7042]),
        ("June 1925\n\n10", [16218, 216, 33, 41, 34, 37, 1116, 33, 32]),
        ("<|im_start|>user\nhé 日本 🙂<|im_end|>", [1, 4093, 198, 88, 2756, 17097, 241, 115, 40993, 47526, 2]),
    ],
)
def test_tokens(tokenizer, text, ids):
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.decode(ids) == text


def test_chat_template(tokenizer):
    turns = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


# mean, standard deviation, and the first weights of row 1; of torch's own reading of the same GGUF file
TENSORS = {
    "model.embed_tokens.weight": (-0.00054228904, 0.1355782078, [-0.0238037109375, -0.015869140625, -0.0396728515625]),
    "model.layers.0.self_attn.q_proj.weight": (
        0.00017850363,
        0.2839460685,
        [-0.1591796875, 0.39794921875, -0.0198974609375],
    ),
    "model.layers.29.self_attn.k_proj.weight": (0.00079474481, 0.1311680499, [0.05859375, -0.02734375, 0.1015625]),
    "model.layers.12.mlp.down_proj.weight": (
        0.00016396757,
        0.1957736160,
        [-0.100830078125, 0.0401611328125, -0.19482421875],
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_weights(home, name):
    mean, deviation, second_row = TENSORS[name]
    with safe_open(home / "model.safetensors", "numpy") as weights:
        weight = weights.get_tensor(name)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight.mean(dtype=np.float64), mean, atol=1e-10)
    np.testing.assert_allclose(weight.std(dtype=np.float64), deviation, rtol=1e-8)
    assert weight[1, :3].tolist() == second_row  # row 1 of q and k is where the un-permutation shows
