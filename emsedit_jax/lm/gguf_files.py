"""A model in a GGUF file -> a Hugging Face directory with float32 weights, without torch.

GGUF is llama.cpp's one-file format: metadata fields, then tensors, most of them quantised in blocks. The mapping is
closed on both sides: a field or tensor that is not understood is refused, as is a file that lacks one.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from jaxtyping import Float

from emsedit_jax.errors import InputError
from emsedit_jax.lm import gguf_bounds, gguf_tables, gguf_tokenizer
from emsedit_jax.lm.gguf_tables import UNTIED_HEAD, Architecture

WRONG = (  # what the library's reader, and the fields and tensors that it has found, make of a file that is none
    *(ValueError, ArithmeticError, AssertionError, NotImplementedError, RecursionError, struct.error),
    *(KeyError, IndexError, TypeError, AttributeError),
)


def convert(gguf: Path, folder: Path) -> None:
    """Writes config.json, generation_config.json, model.safetensors and the tokenizer's two files into `folder`.

    Holds one dequantised tensor at a time.

    Raises:
        InputError: not a GGUF file, or one of a model or tokenizer that is not understood.
        OSError: the disk refused a write.
    """
    gguf_bounds.check(gguf)
    try:
        _convert(GGUFReader(gguf), folder)
    except WRONG as error:
        raise InputError(f"{gguf} cannot be read as a GGUF file: {error}") from error


def _convert(reader: GGUFReader, folder: Path) -> None:
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = gguf_tables.hf_config(fields, tied=UNTIED_HEAD[0] not in {tensor.name for tensor in reader.tensors})
    if config["num_hidden_layers"] > len(reader.tensors):
        raise InputError(f"the GGUF file says to have {config['num_hidden_layers']} layers, more than it has tensors")
    tokens = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokenizer, tokenizer_config = gguf_tokenizer.build(fields, config["max_position_embeddings"])
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", tokens)
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as out:
        _write_weights(reader, gguf_tables.architecture(fields)[1], config, out)


def unpermute(weight_od: Float[np.ndarray, "o d"], heads: int) -> Float[np.ndarray, "o d"]:
    """Puts q or k rows back into Hugging Face's order (`heads` is the kv heads' number for k).

    llama.cpp rotates neighbours (2j, 2j+1) of a head by angle j, Hugging Face the halves (j, j + e/2); so GGUF files
    hold each head's rows with the two halves interleaved.
    """
    o, d = weight_od.shape
    return weight_od.reshape(heads, o // heads // 2, 2, d).swapaxes(1, 2).reshape(o, d)


def _write_weights(reader: GGUFReader, row: Architecture, config: dict, out: io.BufferedIOBase) -> None:
    table = gguf_tables.names(row, config["num_hidden_layers"], tied=config["tie_word_embeddings"])
    given = {tensor.name: tensor for tensor in reader.tensors}
    if given.keys() != table.keys():
        odd, gone = sorted(given.keys() - table.keys()), sorted(table.keys() - given.keys())
        raise InputError(
            f"the GGUF file's tensors are not those of its architecture: unknown {odd[:5]}, missing {gone[:5]}"
        )
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]} if row.permuted else {}
    shapes = {table[name]: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in given.items()}

    def load(theirs: str) -> np.ndarray:
        tensor = given[ours[theirs]]
        try:
            with np.errstate(all="ignore"):  # what comes of it is looked at
                weight = dequantize(tensor.data, tensor.tensor_type).reshape(shapes[theirs])
        except NotImplementedError as error:
            raise InputError(f"the GGUF file's tensor {tensor.name!r}: {error}") from error
        if not np.isfinite(weight).all():
            raise InputError(f"the GGUF file's tensor {tensor.name!r} has values that are no finite numbers")
        module = tensor.name.split(".")[-2]
        if module.endswith("norm"):
            return weight - np.float32(row.gain_offset)
        return unpermute(weight, heads[module]) if module in heads else weight

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
