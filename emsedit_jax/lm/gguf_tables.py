"""What GGUF files call things, for each model architecture that is understood: a row, closed on both sides."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from emsedit_jax.errors import InputError

UNTIED_HEAD = ("output.weight", "lm_head.weight")  # absent when the head shares the embedding's weights
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
LAYER = {  # llama.cpp's names -> Hugging Face's
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
FIELDS = {  # metadata below the architecture's name -> config.json
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}


class Architecture(NamedTuple):
    """How one architecture's files are read."""

    layer: dict[str, str]
    fields: dict[str, str]
    constants: dict[str, Any]  # of config.json: what the files leave to the reader
    permuted: bool  # rows of queries and keys stand in llama.cpp's order
    gain_offset: float = 0.0  # what llama.cpp has added to the norms' gains


ARCHITECTURES = {
    "llama": Architecture(
        LAYER,
        FIELDS | {"vocab_size": "vocab_size", "rope.dimension_count": "head_dim"},
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        },
        permuted=True,
    ),
    "gemma3": Architecture(
        LAYER
        | {
            "attn_q_norm": "self_attn.q_norm",
            "attn_k_norm": "self_attn.k_norm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        FIELDS
        | {
            "attention.key_length": "head_dim",
            "attention.value_length": "head_dim",
            "attention.sliding_window": "sliding_window",
        },
        {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "query_pre_attn_scalar": 256,
            "rope_local_base_freq": 10_000.0,
            "sliding_window_pattern": 6,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
        permuted=False,
        gain_offset=1.0,
    ),
}


def architecture(fields: dict) -> tuple[str, Architecture]:
    """(name, row) of the architecture that metadata `fields` name; raises InputError for one that is not understood."""
    name = fields.get("general.architecture")
    if name not in ARCHITECTURES:
        known = ", ".join(map(repr, ARCHITECTURES))
        raise InputError(f"the GGUF file holds a model of architecture {name!r}; understood are {known}")
    return name, ARCHITECTURES[name]


def hf_config(fields: dict, *, tied: bool) -> dict:
    """The config.json of GGUF metadata `fields`; raises InputError when it says anything that is not understood."""
    name, row = architecture(fields)
    given = {key.removeprefix(f"{name}."): value for key, value in fields.items() if key.startswith(f"{name}.")}
    if given.keys() != row.fields.keys():
        odd, gone = sorted(given.keys() - row.fields.keys()), sorted(row.fields.keys() - given.keys())
        raise InputError(f"the GGUF file's {name}.* fields are not the known ones: unknown {odd}, missing {gone}")
    # Floats are kept as float32: 1e-5 would be read back as 9.99999974e-06, so the shortest spelling is taken instead.
    spelled = {key: float(str(np.float32(x))) if isinstance(x, float) else x for key, x in given.items()}
    found: dict[str, Any] = {}
    for ours, theirs in row.fields.items():
        if found.setdefault(theirs, spelled[ours]) != spelled[ours]:
            raise InputError(f"the GGUF file's {name}.{ours} is {spelled[ours]}, which has to be {found[theirs]}")
    return {
        **row.constants,
        "vocab_size": len(fields.get("tokenizer.ggml.tokens", ())),
        **found,
        "tie_word_embeddings": tied,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }


def names(row: Architecture, layers: int, *, tied: bool) -> dict[str, str]:
    """Every tensor: llama.cpp's name -> Hugging Face's."""
    table = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in TOP.items()}
    for i in range(layers):
        table |= {f"blk.{i}.{ours}.weight": f"model.layers.{i}.{theirs}.weight" for ours, theirs in row.layer.items()}
    return table if tied else table | dict([UNTIED_HEAD])
