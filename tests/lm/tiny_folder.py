"""A Hugging Face model folder with one layer, its tensors named by hand, whole or in shards."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

D, F, H, G, E, VOCABULARY = 8, 12, 4, 2, 6, 10
CONFIG = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": D,
    "intermediate_size": F,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "head_dim": E,
    "num_hidden_layers": 1,
}
SHAPES = {  # as published: linear weights are [outputs, inputs]
    "model.embed_tokens.weight": (VOCABULARY, D),
    "model.layers.0.input_layernorm.weight": (D,),
    "model.layers.0.self_attn.q_proj.weight": (H * E, D),
    "model.layers.0.self_attn.k_proj.weight": (G * E, D),
    "model.layers.0.self_attn.v_proj.weight": (G * E, D),
    "model.layers.0.self_attn.o_proj.weight": (D, H * E),
    "model.layers.0.post_attention_layernorm.weight": (D,),
    "model.layers.0.mlp.gate_proj.weight": (F, D),
    "model.layers.0.mlp.up_proj.weight": (F, D),
    "model.layers.0.mlp.down_proj.weight": (D, F),
    "model.norm.weight": (D,),
    "lm_head.weight": (VOCABULARY, D),
}

Tensors = dict[str, np.ndarray]


def tensors(dtype: npt.DTypeLike = "float32", seed: int = 0) -> Tensors:
    """Random tensors under their published names."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def write(folder: Path, weights: Tensors, shards: int = 1, **config) -> Path:
    """Writes config.json and the weights, every `shards`-th tensor in the same shard. Returns the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    files = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    where = {name: files[place % shards] for place, name in enumerate(weights)}
    for file in files:
        save_file({name: weights[name] for name, own in where.items() if own == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def write_tokenizer(folder: Path) -> None:
    """Words "w0" to "w9", apart by spaces."""
    bare = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.save(str(folder / "tokenizer.json"))


def charsmap(root: int = 1, leaf: int = 0, texts: bytes = b"q\0") -> bytes:
    """SentencePiece's map of characters with one entry, Q to q.

    Args:
      root: the offset of the trie's root; the entry stands where it leads to with 1.
      leaf: where the entry's text begins.
    """
    units = np.zeros(256, "<u4")
    units[0], units[1 ^ ord("Q")] = root << 10, 2 << 10 | 1 << 8 | ord("Q")
    units[1 ^ ord("Q") ^ 2] = 1 << 31 | leaf
    return units.nbytes.to_bytes(4, "little") + units.tobytes() + texts


def change_tokenizer(folder: Path, **fields: Any) -> None:
    """Puts other fields into the folder's tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def precompiled(content: bytes) -> dict[str, str]:
    """The normaliser of a tokenizer.json that has this map of characters."""
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}
