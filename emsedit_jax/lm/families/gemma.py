"""Gemma 2 and 3: norms before and after, gains stored as w - 1, windows on most layers, capped scores and logits."""

from __future__ import annotations

from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import llama
from emsedit_jax.lm.families.fields import Fields, above_zero

TABLE = llama.TABLE | {
    "layers.{l}.norm_attn_out": "model.layers.{l}.post_attention_layernorm",
    "layers.{l}.norm_mlp": "model.layers.{l}.pre_feedforward_layernorm",
    "layers.{l}.norm_mlp_out": "model.layers.{l}.post_feedforward_layernorm",
}


def _gemma(family: str, fields: Fields, windowed: tuple[int, ...], window: int, **own) -> LMConfig:
    found = llama.sizes(fields)
    bias = fields.flag("attention_bias")
    fields.take("hidden_act")  # Gemma 1's; transformers goes by hidden_activation alone
    fields.take("sliding_window_size")  # an old name beside the one in use
    return LMConfig(
        family=family,
        **found,
        window=window if windowed else None,
        windowed=windowed,
        attention_scale=fields.positive("query_pre_attn_scalar", 256.0) ** -0.5,
        attention_bias=bias,
        output_bias=bias,
        activation=fields.activation("hidden_activation", default="gelu_pytorch_tanh"),
        norm_offset=True,
        post_norms=True,
        embed_scale=found["d"] ** 0.5,
        tied_head=fields.flag("tie_word_embeddings", True),
        **own,
    )


def read_gemma2(fields: Fields) -> LMConfig:
    """Windows on layers 0, 2, 4, ..., unless `layer_types` says otherwise."""
    layers = fields.peek("num_hidden_layers")
    listed = fields.windowed(layers)
    theta, scaling = fields.rope()
    return _gemma(
        "gemma2",
        fields,
        windowed=tuple(range(0, layers, 2)) if listed is None else listed,
        window=fields.size("sliding_window", 4096),
        rope_theta=theta,
        rope_scaling=scaling,
        attention_cap=fields.number_or_none("attn_logit_softcapping", 50.0),
        logit_cap=fields.number_or_none("final_logit_softcapping", 30.0),
    )


def read_gemma3(fields: Fields) -> LMConfig:
    """Normed queries and keys; windows on all but every sixth layer, with a rope of their own."""
    layers = fields.peek("num_hidden_layers")
    every = fields.size("sliding_window_pattern", 6)
    every = fields.size("_sliding_window_pattern", every)
    listed = fields.windowed(layers)
    theta, scaling, local = _ropes(fields)
    fields.take("attn_logit_softcapping")  # a field of Gemma 2, which transformers does not apply here either
    return _gemma(
        "gemma3_text",
        fields,
        windowed=tuple(layer for layer in range(layers) if (layer + 1) % every) if listed is None else listed,
        window=fields.size("sliding_window", 4096),
        rope_theta=theta,
        rope_scaling=scaling,
        local_theta=local,
        qk_norm=True,
        logit_cap=fields.number_or_none("final_logit_softcapping"),
    )


def _ropes(fields: Fields):
    """(theta, scaling) of the full layers and theta of the windowed ones, in either layout."""
    both = fields.take("rope_parameters")
    if both is None:
        local = fields.number("rope_local_base_freq", 10_000.0)
        return *fields.rope(1_000_000.0), local
    if not isinstance(both, dict) or not both.keys() <= {"full_attention", "sliding_attention"}:
        raise TypeError(f"rope_parameters={both!r}")
    full = {"rope_theta": fields.take("rope_theta", 1_000_000.0)} | (both.get("full_attention") or {})
    full |= fields.take("rope_scaling", {})  # the older fields fill in and add, as in transformers
    local = {"rope_theta": fields.take("rope_local_base_freq", 10_000.0)} | (both.get("sliding_attention") or {})
    if fields.scaling(local) is not None:
        fields.refused.append("rope scaling of the sliding_attention layers is not supported")
    theta, local_theta = (above_zero("rope_theta", rope["rope_theta"]) for rope in (full, local))
    return theta, fields.scaling(full), local_theta
