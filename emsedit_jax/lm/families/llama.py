"""Llama 2 and 3, and the families in its form: Mistral, Qwen2, Qwen3, SmolLM3 (and SmolLM2, which is a Llama)."""

from __future__ import annotations

from typing import Any

from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families.fields import Fields

# Published module name by the module's path in our tree; {l} is the layer.
TABLE = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "layers.{l}.norm_attn": "model.layers.{l}.input_layernorm",
    "layers.{l}.norm_mlp": "model.layers.{l}.post_attention_layernorm",
    "layers.{l}.attn.q": "model.layers.{l}.self_attn.q_proj",
    "layers.{l}.attn.k": "model.layers.{l}.self_attn.k_proj",
    "layers.{l}.attn.v": "model.layers.{l}.self_attn.v_proj",
    "layers.{l}.attn.o": "model.layers.{l}.self_attn.o_proj",
    "layers.{l}.mlp.gate": "model.layers.{l}.mlp.gate_proj",
    "layers.{l}.mlp.up": "model.layers.{l}.mlp.up_proj",
    "layers.{l}.mlp.down": "model.layers.{l}.mlp.down_proj",
}
QK_NORMS = {
    "layers.{l}.norm_q": "model.layers.{l}.self_attn.q_norm",
    "layers.{l}.norm_k": "model.layers.{l}.self_attn.k_norm",
}


def sizes(fields: Fields) -> dict[str, Any]:
    """The sizes in Llama's words, and what else is read alike in every family of its form."""
    heads, width = fields.size("num_attention_heads"), fields.size("hidden_size")
    return {
        "vocabulary": fields.size("vocab_size"),
        "d": width,
        "f": fields.size("intermediate_size"),
        "h": heads,
        "g": fields.size("num_key_value_heads", heads),
        "e": fields.size("head_dim", width // heads),
        "num_layers": fields.size("num_hidden_layers"),
        "norm_eps": fields.number("rms_norm_eps", 1e-6),
        "max_length": fields.size("max_position_embeddings", 2048),
        "eos_ids": fields.eos_ids(),
    }


def _like_llama(family: str, fields: Fields, *, theta: float = 10_000.0, tied: bool = False, **own: Any) -> LMConfig:
    rope_theta, scaling = fields.rope(theta)
    return LMConfig(
        family=family,
        **sizes(fields),
        rope_theta=rope_theta,
        rope_scaling=scaling,
        activation=fields.activation("hidden_act", default="silu"),
        tied_head=fields.flag("tie_word_embeddings", tied),
        **own,
    )


def read_llama(fields: Fields) -> LMConfig:
    bias = fields.flag("attention_bias")
    return _like_llama("llama", fields, attention_bias=bias, output_bias=bias, mlp_bias=fields.flag("mlp_bias"))


def read_mistral(fields: Fields) -> LMConfig:
    """Llama, with every layer windowed where `sliding_window` is a number (left out, it is 4,096)."""
    window = fields.size_or_none("sliding_window", 4096)
    every = tuple(range(fields.peek("num_hidden_layers"))) if window else ()
    return _like_llama("mistral", fields, window=window, windowed=every)


def read_qwen2(fields: Fields) -> LMConfig:
    """Llama with biases on queries, keys and values."""
    return _like_llama("qwen2", fields, attention_bias=True, **_upper_windows(fields))


def read_qwen3(fields: Fields) -> LMConfig:
    """Llama with normed queries and keys."""
    bias = fields.flag("attention_bias")
    return _like_llama("qwen3", fields, qk_norm=True, attention_bias=bias, output_bias=bias, **_upper_windows(fields))


def read_smollm3(fields: Fields) -> LMConfig:
    """Llama with some layers without rope: every fourth, or those that a list marks with 0."""
    layers = range(fields.peek("num_hidden_layers"))
    turned, every = fields.take("no_rope_layers"), fields.size("no_rope_layer_interval", 4)
    fields.take("max_window_layers")  # Qwen's; not applied here, as in transformers
    turned = [int((layer + 1) % every != 0) for layer in layers] if turned is None else turned
    if not isinstance(turned, list) or len(turned) < len(layers):
        raise ValueError(f"no_rope_layers={turned!r}")
    bias = fields.flag("attention_bias")
    no_rope = tuple(layer for layer in layers if not turned[layer])
    window = fields.size_or_none("sliding_window")
    windowed = no_rope if fields.flag("use_sliding_window") and window else ()
    listed = fields.windowed(len(layers))
    windowed = windowed if listed is None else listed
    return _like_llama(
        "smollm3",
        fields,
        theta=2_000_000.0,
        tied=True,
        no_rope=no_rope,
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=fields.flag("mlp_bias"),
        window=window if windowed else None,
        windowed=windowed,
    )


def _upper_windows(fields: Fields) -> dict[str, Any]:
    """Qwen's windows: off, or on the layers from `max_window_layers` on, or on those that `layer_types` lists."""
    layers = fields.peek("num_hidden_layers")
    used, window = fields.flag("use_sliding_window"), fields.size_or_none("sliding_window", 4096)
    first = fields.take("max_window_layers", 28)
    listed = fields.windowed(layers)
    if not used or window is None:
        return {}
    windowed = tuple(range(max(0, min(first, layers)), layers)) if listed is None else listed
    return {"window": window, "windowed": windowed} if windowed else {}
