"""Live comparison with Hugging Face's Llama in torch: the real model, and small random ones of many head layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers

from emsedit_jax.lm import assets
from emsedit_jax.lm.model import load_lm

torch = pytest.importorskip("torch", reason="torch is the optional extra 'parity'")

SENTENCES = [  # of different lengths: shorter ones are padded on the right
    "What city was Lionel Messi born in?",
    "nq question: who is the author of the book The Old Man and the Sea? Ernest Hemingway",
    "Which river flows through Vienna? The Danube",
    "In which year did the company that built the Apollo lunar module, on Long Island, New York, first open? 1929",
    "Peru?",
]


def reference_logits(folder, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Hugging Face's logits, float32; 0 at padded positions."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
    return np.where(mask[..., None] == 1, logits.numpy(), 0)


def own_logits(lm, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None] == 1, np.asarray(lm.logits(ids, mask)), 0)


def test_smollm2():
    folder = assets.resolve("smollm2-135m")
    lm = load_lm("smollm2-135m")
    ids = lm.tokenizer(SENTENCES)["input_ids"]
    width = max(map(len, ids))
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    padded = np.array([row + [0] * (width - len(row)) for row in ids])
    np.testing.assert_allclose(own_logits(lm, padded, mask), reference_logits(folder, padded, mask), rtol=0, atol=1e-3)


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LAYOUTS = {
    "every head its own keys": {},
    "one key head for all": {"num_key_value_heads": 1},
    "grouped": {"num_key_value_heads": 2},
    "tied head": {"tie_word_embeddings": True, "num_key_value_heads": 2},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "head width apart": {"head_dim": 12, "num_key_value_heads": 2},
    "llama3 rope": {"rope_parameters": LLAMA3_ROPE, "head_dim": 16},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}},
}


def write_random_llama(folder, layout: dict[str, Any]) -> None:
    """A small random Llama with biases and gains away from their initial values, and a tokenizer to go with it."""
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97,
            hidden_size=32,
            intermediate_size=56,
            num_hidden_layers=3,
            num_attention_heads=4,
            **layout,
        )
    )
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            gain = 1.0 if "norm" in name else 0.0
            weight.copy_(gain + 0.3 * torch.randn_like(weight))
    theirs.save_pretrained(folder)
    vocabulary = {f"w{number}": number for number in range(97)}
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=bare).save_pretrained(folder)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_random_llama(tmp_path, layout):
    write_random_llama(tmp_path, layout)
    rng = np.random.default_rng(1)
    ids, mask = rng.integers(0, 97, (3, 60)), np.arange(60) < np.array([[60], [41], [7]])
    logits = reference_logits(tmp_path, ids, mask.astype(int))
    assert logits.std() > 1
    np.testing.assert_allclose(own_logits(load_lm(str(tmp_path)), ids, mask.astype(int)), logits, rtol=0, atol=1e-4)
