"""The real SmolLM2-135M against Hugging Face's model in torch."""

from __future__ import annotations

import numpy as np
import pytest
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
