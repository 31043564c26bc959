"""The families' `config.json`: the published models' in full, defaults as transformers has them, names of weights."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import transformers

from emsedit_jax.edit.sites import resolve
from emsedit_jax.lm import hf, params
from emsedit_jax.lm.families import FAMILIES, from_hf, read_config
from tests.lm.tiny_folder import write
from tests.refusals import refused

CONFIGS = Path(__file__).parent / "hf_configs"
COUNTS = {
    "gemma-2-9b-it": 9_241_705_984,
    "gpt-j-6b": 6_050_882_784,
    "gpt2-xl": 1_557_611_200,
    "llama-3-8b-instruct": 8_030_261_248,
    "mistral-7b-instruct-v0.3": 7_248_023_552,
    "qwen2.5-7b-instruct": 7_615_616_512,
}
SITES = {  # patterns -> (sites, k, v)
    ("llama-3-8b-instruct", "model.layers.{11..15}.mlp.gate_proj"): (5, 4096, 14336),
    ("llama-3-8b-instruct", "model.layers.{18..24}.mlp.up_proj"): (7, 4096, 14336),
    ("gpt-j-6b", "transformer.h.{22..27}.mlp.fc_out"): (6, 16384, 4096),
    ("gpt-j-6b", "transformer.h.{10,12,14,16,18,20,22,24,26}.mlp.fc_in"): (9, 4096, 16384),
    ("gemma-2-9b-it", "model.layers.{32..40}.mlp.gate_proj"): (9, 3584, 14336),
    ("gemma-2-9b-it", "model.layers.{32..40}.mlp.up_proj"): (9, 3584, 14336),
    ("gemma-2-9b-it", "model.layers.{32..40}.mlp.down_proj"): (9, 14336, 3584),
    ("mistral-7b-instruct-v0.3", "model.layers.{17..19}.mlp.down_proj"): (3, 14336, 4096),
    ("qwen2.5-7b-instruct", "model.layers.{17..19}.mlp.down_proj"): (3, 18944, 3584),
    ("gpt2-xl", "transformer.h.{6..11}.mlp.c_proj"): (6, 6400, 1600),
}


def raw(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())


# ---- the published models ----


@pytest.mark.parametrize("name", COUNTS)
def test_the_published_models_have_their_number_of_parameters(name):
    config = from_hf(raw(name))
    assert params.count(config) == COUNTS[name]
    shapes = jax.eval_shape(
        lambda: jax.tree.map(lambda spec: jax.numpy.zeros(spec.shape), params.abstract(config), is_leaf=params.is_spec)
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == COUNTS[name]


@pytest.mark.parametrize(("name", "pattern"), SITES)
def test_the_published_sites_are_found_with_their_shapes(name, pattern):
    (group,) = resolve(from_hf(raw(name)), [pattern])
    assert (len(group.layers), group.k, group.v) == SITES[name, pattern]


def llama_names(layers, biases=(), norms=("input_layernorm", "post_attention_layernorm"), head=True):
    found = ["model.embed_tokens.weight", "model.norm.weight", *(["lm_head.weight"] if head else [])]
    for layer in range(layers):
        start = f"model.layers.{layer}"
        found += [f"{start}.{norm}.weight" for norm in norms]
        found += [f"{start}.self_attn.{name}_proj.weight" for name in "qkvo"]
        found += [f"{start}.self_attn.{name}_proj.bias" for name in biases]
        found += [f"{start}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    return found


def gpt_names(layers, maps, norms, top):
    found = list(top)
    for layer in range(layers):
        for name, leaves in {**dict.fromkeys(norms, ("weight", "bias")), **maps}.items():
            found += [f"transformer.h.{layer}.{name}.{leaf}" for leaf in leaves]
    return found


BOTH = ("weight", "bias")
LAST = ("transformer.ln_f.weight", "transformer.ln_f.bias", "transformer.wte.weight")
GEMMA = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
NAMES = {
    "llama-3-8b-instruct": llama_names(32),
    "mistral-7b-instruct-v0.3": llama_names(32),
    "qwen2.5-7b-instruct": llama_names(28, biases="qkv"),
    "gemma-2-9b-it": llama_names(42, norms=GEMMA, head=False),
    "gpt2-xl": gpt_names(
        48,
        {name: BOTH for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")},
        ("ln_1", "ln_2"),
        (*LAST, "transformer.wpe.weight"),
    ),
    "gpt-j-6b": gpt_names(
        28,
        {f"attn.{name}_proj": ("weight",) for name in ("q", "k", "v", "out")} | {"mlp.fc_in": BOTH, "mlp.fc_out": BOTH},
        ("ln_1",),
        (*LAST, "lm_head.weight", "lm_head.bias"),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_published_weight_is_mapped_exactly_once(name):
    config = from_hf(raw(name))
    mapped = hf.published_names(config)
    assert sorted(mapped) == sorted(NAMES[name])
    places = [path for path, _, _ in mapped.values()]
    assert len(set(places)) == len(places) == len(jax.tree.leaves(params.abstract(config), is_leaf=params.is_spec))


# ---- defaults ----

LLAMA_SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
GPT_SIZES = {"vocab_size": 97, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
CLASSES: dict[str, tuple[Any, dict[str, int], dict[str, int]]] = {
    "mistral": (transformers.MistralConfig, LLAMA_SIZES, {}),
    "qwen2": (transformers.Qwen2Config, LLAMA_SIZES, {}),
    "qwen3": (transformers.Qwen3Config, LLAMA_SIZES, {}),
    "smollm3": (transformers.SmolLM3Config, LLAMA_SIZES, {}),
    "gemma2": (transformers.Gemma2Config, LLAMA_SIZES, {}),
    "gemma3_text": (transformers.Gemma3TextConfig, LLAMA_SIZES, {}),
    "gpt2": (transformers.GPT2Config, GPT_SIZES, {}),
    "gptj": (transformers.GPTJConfig, GPT_SIZES, {"rotary_dim": 4}),
}


@pytest.mark.parametrize("family", CLASSES)
def test_what_is_left_out_is_as_transformers_has_it(family, tmp_path):
    """The same config from the sizes alone, and from all that transformers writes."""
    kind, sizes, needed = CLASSES[family]
    kind(**sizes, **needed).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    ends = {
        "eos_token_id": written.get("eos_token_id"),
        "max_position_embeddings": written.get("max_position_embeddings"),
    }
    short = {"model_type": family, **sizes, **needed} | ({} if family.startswith("gpt") else ends)
    short |= {"eos_token_id": written.get("eos_token_id")}
    assert from_hf(short) == read_config(tmp_path)


def test_every_family_has_a_case():
    assert set(CLASSES) | {"llama"} == set(FAMILIES)


# ---- what a family has of its own ----


@pytest.mark.parametrize(
    ("family", "fields", "window", "windowed"),
    [
        ("mistral", {"sliding_window": 7}, 7, tuple(range(8))),
        ("mistral", {"sliding_window": None}, None, ()),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 9, "max_window_layers": 2}, None, ()),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 5}, 9, (5, 6, 7)),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 99}, None, ()),
        ("gemma2", {"sliding_window": 9}, 9, (0, 2, 4, 6)),
        ("gemma3_text", {"sliding_window": 9}, 9, (0, 1, 2, 3, 4, 6, 7)),
        ("gemma3_text", {"sliding_window": 9, "sliding_window_pattern": 2}, 9, (0, 2, 4, 6)),
    ],
)
def test_windows(family, fields, window, windowed):
    config = from_hf({"model_type": family, **LLAMA_SIZES, **fields})
    assert (config.window, config.windowed) == (window, windowed)


def test_ropes_of_gemma_3_in_its_older_and_newer_layout():
    old = {"rope_theta": 5.0, "rope_local_base_freq": 7.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    full = {"rope_type": "linear", "rope_theta": 5.0, "factor": 8.0}
    new = {
        "rope_parameters": {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 7.0}}
    }
    read = [from_hf({"model_type": "gemma3_text", **LLAMA_SIZES, **fields}) for fields in (old, new)]
    assert read[0] == read[1]
    assert (read[0].rope_theta, read[0].local_theta, read[0].rope_scaling) == (5.0, 7.0, ("linear", 8.0, 0.0, 0.0, 0))


def test_older_ropes_fill_in_what_newer_ones_leave_out():
    """As transformers: fields of both layouts together, in a config that was changed by hand."""
    fields = {"rope_parameters": {"full_attention": {}}, "rope_theta": 5.0, "rope_local_base_freq": 7.0}
    scaled = fields | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    configs = [from_hf({"model_type": "gemma3_text", **LLAMA_SIZES, **one}) for one in (fields, scaled)]
    assert [(one.rope_theta, one.local_theta) for one in configs] == [(5.0, 7.0)] * 2
    assert [one.rope_scaling for one in configs] == [None, ("linear", 8.0, 0.0, 0.0, 0)]


def test_gemma_goes_by_its_own_field_for_the_activation():
    for family in ("gemma2", "gemma3_text"):
        raw = {"model_type": family, **LLAMA_SIZES}
        assert from_hf(raw | {"hidden_act": "gelu"}).activation == "gelu_pytorch_tanh"
        assert from_hf(raw | {"hidden_activation": "gelu"}).activation == "gelu"


@pytest.mark.parametrize(  # fields of published files that change nothing here
    ("family", "fields"),
    [
        ("gptj", {"rotary": True}),
        ("gpt2", {"output_past": True, "n_special": 0, "predict_special_tokens": True}),
        ("smollm3", {"pretraining_tp": 2, "max_window_layers": 28}),
        ("llama", {"pretraining_tp": 1, "_attn_implementation_autoset": True}),
    ],
)
def test_fields_of_published_configs_are_known(family, fields):
    sizes = {"model_type": family} | (GPT_SIZES if family.startswith("gpt") else LLAMA_SIZES)
    sizes |= {"rotary_dim": 4} if family == "gptj" else {}
    assert from_hf(sizes | fields) == from_hf(sizes)


@pytest.mark.parametrize(
    ("family", "fields", "named"),
    [
        ("gptj", {"rotary": False, "rotary_dim": 4}, "rotary=False"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern=0"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 7.0}}, "rope_parameters="),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"add_cross_attention": True}, "unhandled config fields add_cross_attention"),
        ("gptj", {"rotary_dim": 3}, "rotary_dim"),
        ("gptj", {"rotary_dim": 64}, "64 features (rotary_dim or head_dim) of heads of width 8"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 8}, "chunked_attention"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers=[1, 0]"),
        ("mistral", {"sliding_window": "7"}, "sliding_window='7'"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "sliding_at",
        ),
    ],
)
def test_what_is_not_understood_is_refused(family, fields, named):
    sizes = GPT_SIZES if family.startswith("gpt") else LLAMA_SIZES
    with refused("config.json", named):
        from_hf({"model_type": family, **sizes, **fields})


# ---- files ----


def gpt2_tensors(prefix="transformer."):
    config = from_hf({"model_type": "gpt2", **GPT_SIZES})
    rng = np.random.default_rng(0)
    return {
        name.removeprefix("transformer.") if not prefix else name: rng.normal(size=spec.shape).astype(np.float32)
        for name, (_, spec, _) in hf.published_names(config).items()
    }


def gpt2_folder(path, tensors):
    folder = write(path, tensors)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **GPT_SIZES}))
    return folder


def test_linear_weights_of_gpt2_are_stored_as_they_are_used(tmp_path):
    tensors = gpt2_tensors()
    folder = gpt2_folder(tmp_path, tensors)
    loaded = hf.load_params(folder, read_config(folder))
    weight = loaded["layers"][1]["attn"]["qkv"]["w"]
    assert weight.shape == (32, 96)
    np.testing.assert_array_equal(weight, tensors["transformer.h.1.attn.c_attn.weight"])


def test_a_checkpoint_of_the_bare_model_and_its_buffers(tmp_path):
    whole = gpt2_folder(tmp_path / "whole", gpt2_tensors())
    buffers = {f"h.{layer}.attn.bias": np.ones((1, 1, 4, 4), np.float32) for layer in range(3)}
    buffers |= {f"h.{layer}.attn.masked_bias": np.ones((), np.float32) for layer in range(3)}
    bare = gpt2_folder(tmp_path / "bare", gpt2_tensors("") | buffers)
    loaded = [hf.load_params(folder, read_config(folder)) for folder in (whole, bare)]
    jax.tree.map(np.testing.assert_array_equal, *loaded)
    both = gpt2_folder(tmp_path / "both", gpt2_tensors() | {"wte.weight": np.zeros((97, 32), np.float32)})
    with refused("wte.weight", "there twice"):
        hf.load_params(both, read_config(both))
