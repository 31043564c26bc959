"""GPT-2 and GPT-J: centred norms with biases, an mlp without a gate."""

from __future__ import annotations

from typing import Any

from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families.fields import Fields

GPT2 = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "layers.{l}.norm_attn": "transformer.h.{l}.ln_1",
    "layers.{l}.norm_mlp": "transformer.h.{l}.ln_2",
    "layers.{l}.attn.qkv": "transformer.h.{l}.attn.c_attn",
    "layers.{l}.attn.o": "transformer.h.{l}.attn.c_proj",
    "layers.{l}.mlp.up": "transformer.h.{l}.mlp.c_fc",
    "layers.{l}.mlp.down": "transformer.h.{l}.mlp.c_proj",
}
GPTJ = {
    "embed": "transformer.wte",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "layers.{l}.norm_attn": "transformer.h.{l}.ln_1",
    "layers.{l}.attn.q": "transformer.h.{l}.attn.q_proj",
    "layers.{l}.attn.k": "transformer.h.{l}.attn.k_proj",
    "layers.{l}.attn.v": "transformer.h.{l}.attn.v_proj",
    "layers.{l}.attn.o": "transformer.h.{l}.attn.out_proj",
    "layers.{l}.mlp.up": "transformer.h.{l}.mlp.fc_in",
    "layers.{l}.mlp.down": "transformer.h.{l}.mlp.fc_out",
}
BUFFERS = (".attn.bias", ".attn.masked_bias")  # causal masks that old checkpoints carry; computed here
SUMMARY = ("type", "use_proj", "activation", "first_dropout", "proj_to_labels")  # of a head that is not used here


def _gpt(family: str, fields: Fields, **own: Any) -> LMConfig:
    width, heads = fields.size("n_embd"), fields.size("n_head")
    for name in SUMMARY:
        fields.take(f"summary_{name}")
    length = fields.size("n_positions", fields.take("n_ctx"))
    fields.take("n_ctx")
    return LMConfig(
        family=family,
        vocabulary=fields.size("vocab_size"),
        d=width,
        f=fields.size("n_inner", 4 * width),
        h=heads,
        g=heads,
        e=width // heads,
        num_layers=fields.size("n_layer"),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        gated=False,
        activation=fields.activation("activation_function", default="gelu_new"),
        mlp_bias=True,
        layer_norm=True,
        max_length=length,
        eos_ids=fields.eos_ids(),
        **own,
    )


def read_gpt2(fields: Fields) -> LMConfig:
    """Learned positions, and one map for queries, keys and values."""
    fields.must_be("scale_attn_by_inverse_layer_idx", False)
    fields.take("reorder_and_upcast_attn")  # the order of rounding alone
    scaled, tied = fields.flag("scale_attn_weights", True), fields.flag("tie_word_embeddings", True)
    return _gpt(
        "gpt2",
        fields,
        learned_positions=True,
        attention_scale=None if scaled else 1.0,
        attention_bias=True,
        output_bias=True,
        fused_qkv=True,
        tied_head=tied,
    )


def read_gptj(fields: Fields) -> LMConfig:
    """Attention and mlp side by side; rope turns neighbours, and only the first features of each head."""
    fields.take("scale_attn_weights")
    fields.must_be("rotary", True)
    return _gpt(
        "gptj",
        fields,
        rotary=fields.size("rotary_dim", 64),
        rope_neighbours=True,
        parallel=True,
        tied_head=fields.flag("tie_word_embeddings", False),
        head_bias=True,
    )
