"""A tiny Gemma 3 in a GGUF file with a SentencePiece tokenizer becomes a model folder that is loaded like any other."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from emsedit_jax.errors import InputError
from emsedit_jax.lm import gguf_files, gguf_sentencepiece
from emsedit_jax.lm.model import load_lm

D, F, HEADS, E, LAYERS = 32, 64, 2, 16, 3
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
PIECES = [  # (piece, score, kind)
    ("<pad>", 0.0, CONTROL),
    ("<eos>", 0.0, CONTROL),
    ("<bos>", 0.0, CONTROL),
    ("<unk>", 0.0, UNKNOWN),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
    ("\n\n", 0.0, USER),
    ("th", -1.0, NORMAL),
    ("the", -2.0, NORMAL),
    ("he", -3.0, NORMAL),
    ("\u2581the", -4.0, NORMAL),
    ("at", -5.0, NORMAL),
    ("cat", -6.0, NORMAL),
    ("\u2581cat", -7.0, NORMAL),
    *((letter, -100.0 - place, NORMAL) for place, letter in enumerate("\u2581acehtn\n")),
]
ID = {piece: place for place, (piece, _, _) in enumerate(PIECES)}
FIELDS = {
    "gemma3.block_count": LAYERS,
    "gemma3.context_length": 128,
    "gemma3.embedding_length": D,
    "gemma3.feed_forward_length": F,
    "gemma3.attention.head_count": HEADS,
    "gemma3.attention.head_count_kv": 1,
    "gemma3.attention.key_length": E,
    "gemma3.attention.value_length": E,
    "gemma3.attention.sliding_window": 5,
    "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
    "gemma3.rope.freq_base": 1e6,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": [piece for piece, _, _ in PIECES],
    "tokenizer.ggml.scores": [score for _, score, _ in PIECES],
    "tokenizer.ggml.token_type": [kind for _, _, kind in PIECES],
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_eos_token": False,
    "tokenizer.ggml.add_space_prefix": False,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 3,
}
NORMS = {
    "attn_norm": ("input_layernorm", D),
    "attn_q_norm": ("self_attn.q_norm", E),
    "attn_k_norm": ("self_attn.k_norm", E),
    "post_attention_norm": ("post_attention_layernorm", D),
    "ffn_norm": ("pre_feedforward_layernorm", D),
    "post_ffw_norm": ("post_feedforward_layernorm", D),
}
MAPS = {
    "attn_q": ("self_attn.q_proj", HEADS * E, D),
    "attn_k": ("self_attn.k_proj", E, D),
    "attn_v": ("self_attn.v_proj", E, D),
    "attn_output": ("self_attn.o_proj", D, HEADS * E),
    "ffn_gate": ("mlp.gate_proj", F, D),
    "ffn_up": ("mlp.up_proj", F, D),
    "ffn_down": ("mlp.down_proj", D, F),
}


def write(path, **changed):
    """Writes the file; returns Hugging Face's name -> weight. Norms' gains are stored with 1 added."""
    rng, expected = np.random.default_rng(0), {}
    writer = gguf.GGUFWriter(path, "gemma3")
    for name, value in (FIELDS | changed).items():
        add: dict[type, Any] = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
        }
        add.get(type(value), writer.add_array)(name, value)

    def put(ours, theirs, *shape, offset=0.0):
        expected[f"{theirs}.weight"] = rng.integers(-8, 8, shape).astype(np.float32) / 16
        writer.add_tensor(f"{ours}.weight", expected[f"{theirs}.weight"] + np.float32(offset))

    put("token_embd", "model.embed_tokens", len(PIECES), D)
    put("output_norm", "model.norm", D, offset=1.0)
    for layer in range(LAYERS):
        for ours, (theirs, width) in NORMS.items():
            put(f"blk.{layer}.{ours}", f"model.layers.{layer}.{theirs}", width, offset=1.0)
        for ours, (theirs, *shape) in MAPS.items():
            put(f"blk.{layer}.{ours}", f"model.layers.{layer}.{theirs}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, the weights that belong in it)."""
    folder = tmp_path_factory.mktemp("gemma3")
    expected = write(folder / "m.gguf")
    gguf_files.convert(folder / "m.gguf", folder)
    return folder, expected


def test_weights_keep_their_rows_and_gains_lose_the_one_that_was_added(made):
    folder, expected = made
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        np.testing.assert_array_equal(weights[name], weight, err_msg=name)


def test_the_folder_is_loaded_as_a_gemma_3(made):
    lm = load_lm(str(made[0]))
    config = lm.config
    assert (config.family, config.vocabulary, config.d, config.f) == ("gemma3_text", len(PIECES), D, F)
    assert (config.h, config.g, config.e, config.num_layers) == (HEADS, 1, E, LAYERS)
    assert (config.window, config.windowed, config.rope_theta, config.local_theta) == (5, (0, 1, 2), 1e6, 1e4)
    assert (config.qk_norm, config.norm_offset, config.post_norms, config.tied_head) == (True, True, True, True)
    assert (config.attention_scale, config.attention_cap, config.logit_cap) == (256**-0.5, None, None)
    assert (config.norm_eps, config.eos_ids, config.max_length) == (1e-6, (1,), 128)
    ids = np.array([lm.tokenizer("the cat the cat")["input_ids"]])
    assert np.isfinite(np.asarray(lm.logits(ids, np.ones_like(ids)))).all()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the cat", ["<bos>", "the", "\u2581cat"]),
        ("hat the", ["<bos>", "h", "at", "\u2581the"]),  # "he" and "th" do not come about
        ("that", ["<bos>", "th", "at"]),
        ("a\n\nn", ["<bos>", "a", "\n\n", "n"]),
        ("né", ["<bos>", "n", "<0xC3>", "<0xA9>"]),
        ("", ["<bos>"]),
    ],
)
def test_text_is_cut_as_the_scores_have_it(made, text, pieces):
    tokenizer = load_lm(str(made[0])).tokenizer
    ids = tokenizer(text)["input_ids"]
    assert ids == [ID[piece] for piece in pieces]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_pairs_come_by_the_score_of_what_they_make():
    tokens, scores, kinds = zip(*PIECES, strict=True)
    found = gguf_sentencepiece.pairs(tokens, scores, kinds)
    assert found[:4] == [("\n", "\n"), ("t", "h"), ("t", "he"), ("th", "e")] or found[:4] == [
        ("\n", "\n"),
        ("t", "h"),
        ("th", "e"),
        ("t", "he"),
    ]
    made_by_score = [scores[ID[left + right]] for left, right in found]
    assert made_by_score == sorted(made_by_score, reverse=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tokenizer.ggml.add_space_prefix": True}, "add_space_prefix"),
        ({"tokenizer.ggml.pre": "gemma"}, "pre-tokenizer 'gemma' is not understood"),
        ({"gemma3.attention.value_length": 8}, "value_length is 8, which has to be 16"),
        ({"gemma3.rope.scaling.factor": 8.0}, r"unknown \['rope.scaling.factor'\]"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, changed, said):
    write(tmp_path / "m.gguf", **changed)
    with pytest.raises(InputError, match=said):
        gguf_files.convert(tmp_path / "m.gguf", tmp_path)
