"""A Llama in a GGUF file -> a Hugging Face directory with float32 weights, without torch.

GGUF is llama.cpp's one-file format: metadata fields, then tensors, most of them quantised in blocks. The mapping is
closed on both sides: a field or tensor that is not understood is refused, as is a file that lacks one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from jaxtyping import Float

from emsedit_jax.errors import InputError
from emsedit_jax.lm import gguf_tokenizer

# llama.cpp's names -> Hugging Face's; {} is the layer's number
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
UNTIED_HEAD = ("output.weight", "lm_head.weight")  # absent when the head shares the embedding's weights

# metadata below `llama.` -> config.json
FIELDS = {
    "vocab_size": "vocab_size",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "rope.dimension_count": "head_dim",
}


def convert(gguf: Path, folder: Path) -> None:
    """Writes config.json, generation_config.json, model.safetensors and the tokenizer's two files into `folder`.

    Holds one dequantised tensor at a time.

    Raises:
        InputError: not a GGUF file, or one of a model or tokenizer that is not understood.
        OSError: the disk refused a write.
    """
    try:
        reader = GGUFReader(gguf)
    except (ValueError, IndexError) as error:
        raise InputError(f"{gguf} cannot be read as a GGUF file: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = llama_config(fields, tied=UNTIED_HEAD[0] not in {tensor.name for tensor in reader.tensors})
    tokens = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokenizer, tokenizer_config = gguf_tokenizer.build(fields)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", tokens)
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as out:
        _write_weights(reader, config, out)


def llama_config(fields: dict, *, tied: bool) -> dict:
    """The config.json of GGUF metadata `fields`; raises InputError when it says anything that is not understood."""
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise InputError(f"the GGUF file holds a model of architecture {architecture!r}; only 'llama' is understood")
    given = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    if given.keys() != FIELDS.keys():
        odd, gone = sorted(given.keys() - FIELDS.keys()), sorted(FIELDS.keys() - given.keys())
        raise InputError(f"the GGUF file's llama.* fields are not the known ones: unknown {odd}, missing {gone}")
    # Floats are kept as float32: 1e-5 would be read back as 9.99999974e-06, so the shortest spelling is taken instead.
    spelled = {name: float(str(np.float32(x))) if isinstance(x, float) else x for name, x in given.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{theirs: spelled[ours] for ours, theirs in FIELDS.items()},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }


def names(layers: int, *, tied: bool) -> dict[str, str]:
    """Every tensor of a Llama: llama.cpp's name -> Hugging Face's."""
    table = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in TOP.items()}
    for i in range(layers):
        table |= {f"blk.{i}.{ours}.weight": f"model.layers.{i}.{theirs}.weight" for ours, theirs in LAYER.items()}
    return table if tied else table | dict([UNTIED_HEAD])


def unpermute(weight_od: Float[np.ndarray, "o d"], heads: int) -> Float[np.ndarray, "o d"]:
    """Puts q or k rows back into Hugging Face's order (`heads` is the kv heads' number for k).

    llama.cpp rotates neighbours (2j, 2j+1) of a head by angle j, Hugging Face the halves (j, j + e/2); so GGUF files
    hold each head's rows with the two halves interleaved.
    """
    o, d = weight_od.shape
    return weight_od.reshape(heads, o // heads // 2, 2, d).swapaxes(1, 2).reshape(o, d)


def _write_weights(reader: GGUFReader, config: dict, out: io.BufferedIOBase) -> None:
    table = names(config["num_hidden_layers"], tied=config["tie_word_embeddings"])
    given = {tensor.name: tensor for tensor in reader.tensors}
    if given.keys() != table.keys():
        odd, gone = sorted(given.keys() - table.keys()), sorted(table.keys() - given.keys())
        raise InputError(f"the GGUF file's tensors are not a Llama's: unknown {odd[:5]}, missing {gone[:5]}")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    shapes = {table[name]: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in given.items()}

    def load(theirs: str) -> np.ndarray:
        tensor = given[ours[theirs]]
        try:
            weight = dequantize(tensor.data, tensor.tensor_type).reshape(shapes[theirs])
        except NotImplementedError as error:
            raise InputError(f"the GGUF file's tensor {tensor.name!r}: {error}") from error
        permuted = heads.get(tensor.name.split(".")[-2])
        return unpermute(weight, permuted) if permuted else weight

    ours = {theirs: name for name, theirs in table.items()}
    write_safetensors(out, shapes, load)


def write_safetensors(
    out: io.BufferedIOBase, shapes: dict[str, tuple[int, ...]], load: Callable[[str], np.ndarray]
) -> None:
    """Writes float32 tensors one by one, so that only one is in memory (the library's own writer wants them all).

    The format: the header's length (8 bytes, little-endian), a JSON header padded to 8 bytes, the tensors' bytes.
    """
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for name in shapes:
        out.write(np.ascontiguousarray(load(name), dtype="<f4").data)


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
