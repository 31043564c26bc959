"""Small random models of every family and many layouts: Hugging Face's in torch, and ours from its files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from emsedit_jax.lm import hf
from emsedit_jax.lm.families import read_config
from emsedit_jax.lm.model import LM

torch = pytest.importorskip("torch", reason="torch is the optional extra 'parity'")

VOCABULARY, LENGTH = 97, 30
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {  # model_type -> (transformers' model, its config, sizes)
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig, SMALL),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig, SMALL),
    "qwen2": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config, SMALL),
    "qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config, SMALL),
    "smollm3": (transformers.SmolLM3ForCausalLM, transformers.SmolLM3Config, SMALL),
    "gemma2": (transformers.Gemma2ForCausalLM, transformers.Gemma2Config, SMALL),
    "gemma3_text": (transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig, SMALL),
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config, GPT),
    "gptj": (transformers.GPTJForCausalLM, transformers.GPTJConfig, GPT | {"rotary_dim": 4}),
}
FULL, NEAR = "full_attention", "sliding_attention"
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
HEADS = {
    "one key head for all": {"num_key_value_heads": 1},
    "every head its own keys": {"num_key_value_heads": 4},
    "head width apart": {"head_dim": 12},
}
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": HEADS
    | {
        "tied": {"tie_word_embeddings": True},
        "biases": {"attention_bias": True, "mlp_bias": True},
        "llama3 rope": {"rope_parameters": LLAMA3},
        "linear rope": {"rope_parameters": LINEAR},
        "gelu": {"hidden_act": "gelu"},
    },
    "mistral": HEADS
    | {"window": {"sliding_window": 5}, "no window": {"sliding_window": None}, "tied": {"tie_word_embeddings": True}},
    "qwen2": HEADS
    | {
        "window above": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
        "windows listed": {"use_sliding_window": True, "sliding_window": 5, "layer_types": [NEAR, FULL, FULL, NEAR]},
        "tied": {"tie_word_embeddings": True},
    },
    "qwen3": HEADS
    | {
        "biases": {"attention_bias": True},
        "window above": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        "tied": {"tie_word_embeddings": True},
    },
    "smollm3": HEADS
    | {
        "rope everywhere": {"no_rope_layers": [1, 1, 1, 1]},
        "rope here and there": {"no_rope_layers": [0, 1, 0, 1], "tie_word_embeddings": False},
        "window": {"use_sliding_window": True, "sliding_window": 5, "no_rope_layer_interval": 2},
        "biases": {"attention_bias": True, "mlp_bias": True},
    },
    "gemma2": HEADS
    | {
        "window": {"sliding_window": 5},
        "windows listed": {"sliding_window": 5, "layer_types": [FULL, NEAR, NEAR, FULL]},
        "caps": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "query scale": {"query_pre_attn_scalar": 20, "attention_bias": True},
    },
    "gemma3_text": HEADS
    | {
        "window": {"sliding_window": 5, "num_hidden_layers": 6},
        "windows listed": {"sliding_window": 5, "layer_types": [FULL, NEAR, NEAR, FULL]},
        "ropes": {
            "sliding_window": 7,
            "layer_types": [NEAR, FULL, NEAR, FULL],
            "rope_parameters": {FULL: LINEAR, NEAR: {"rope_type": "default", "rope_theta": 50.0}},
        },
        "caps": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 20},
    },
    "gpt2": {
        "plain": {},
        "wide": {"n_inner": 72},
        "unscaled": {"scale_attn_weights": False, "activation_function": "gelu"},
        "untied": {"tie_word_embeddings": False},
    },
    "gptj": {"plain": {}, "turned whole": {"rotary_dim": 8}, "wide": {"n_inner": 72}},
}
CASES = [(family, layout) for family, layouts in LAYOUTS.items() for layout in layouts]


def built(family: str, layout: str, seed: int) -> Any:
    """Hugging Face's model, with gains and biases away from their initial values."""
    torch.manual_seed(seed)
    model, config, sizes = KINDS[family]
    theirs = model(config(**(sizes | LAYOUTS[family][layout]), attn_implementation="eager")).eval()
    offset = family.startswith("gemma")  # gains are stored as w - 1
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            gain = 1.0 if weight.ndim == 1 and ("norm" in name or "ln_" in name) and name.endswith("weight") else 0.0
            weight.copy_((0.0 if offset else gain) + 0.3 * torch.randn_like(weight))
    return theirs


def ours(folder: Path) -> LM:
    """Our model of a folder, in float32, without a tokenizer."""
    config = dataclasses.replace(read_config(folder), dtype="float32")
    return LM(config, hf.load_params(folder, config), None, folder)


def reference(theirs, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Their logits, positions counted from column 0."""
    positions = torch.arange(ids.shape[1])[None].expand(len(ids), -1)
    with torch.no_grad():
        given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "position_ids": positions}
        return theirs(**given).logits.numpy()


def ragged(seed: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Three rows of 30, 21 and 6 tokens, padded on one side: (ids, mask)."""
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (3, LENGTH))
    mask = (np.arange(LENGTH) < np.array([[30], [21], [6]])).astype(int)
    return ids, mask if side == "right" else mask[:, ::-1].copy()
