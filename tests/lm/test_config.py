import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from emsedit_jax.lm import json_files
from emsedit_jax.lm.config import LMConfig, RopeScaling, inverse_frequencies
from emsedit_jax.lm.families import from_hf, read_config
from tests.refusals import refused

RAW: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
PATH = Path("models/tiny/config.json")


def changed(**fields) -> dict[str, Any]:
    return RAW | fields


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RAW.items() if key != name}


# ---- what is read ----


def test_what_is_left_out_has_llama_s_defaults():
    assert from_hf(RAW) == LMConfig(
        family="llama",
        vocabulary=100,
        d=32,
        f=56,
        h=4,
        g=4,
        e=8,
        num_layers=3,
        norm_eps=1e-6,
        rope_theta=10_000.0,
    )


def test_every_field_is_read():
    raw = changed(
        num_key_value_heads=2,
        head_dim=12,
        rms_norm_eps=1e-5,
        rope_theta=500_000,
        rope_scaling=LLAMA3,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        max_position_embeddings=131_072,
        eos_token_id=[7, 9],
    )
    config = from_hf(raw)
    assert (config.g, config.e, config.norm_eps, config.rope_theta) == (2, 12, 1e-5, 500_000.0)
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    assert (config.tied_head, config.attention_bias, config.mlp_bias) == (True, True, True)
    assert (config.max_length, config.eos_ids) == (131_072, (7, 9))


def test_the_content_given_is_not_changed():
    raw = changed(rope_theta=5.0)
    from_hf(raw)
    assert raw == changed(rope_theta=5.0)


@pytest.mark.parametrize(
    ("fields", "theta", "scaling"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, 7.0, None),
        ({"rope_parameters": {"rope_theta": 7.0, **LLAMA3}}, 7.0, RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)),
        ({"rope_theta": 9.0, "rope_scaling": {"type": "linear", "factor": 4}}, 9.0, RopeScaling("linear", 4.0)),
        ({"rope_scaling": None}, 10_000.0, None),
        ({"rope_theta": 9.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}, 7.0, None),
        (
            {"rope_parameters": {"rope_theta": 7.0, **LLAMA3}, "rope_scaling": LLAMA3},
            7.0,
            RopeScaling("llama3", 8.0, 1.0, 4.0, 8192),
        ),
    ],
)
def test_rope_in_its_older_and_newer_layouts(fields, theta, scaling):
    config = from_hf(changed(**fields))
    assert (config.rope_theta, config.rope_scaling) == (theta, scaling)


def test_fields_that_say_nothing_are_let_through():
    raw = changed(transformers_version="5.0", use_cache=True, pruned_heads={}, sliding_window=None, pretraining_tp=2)
    assert from_hf(raw) == from_hf(RAW)


def test_windows_from_a_layer_below_the_first_are_on_all_layers():
    raw = changed(model_type="qwen2", use_sliding_window=True, max_window_layers=-(10**12))
    assert from_hf(raw).windowed == (0, 1, 2)


# ---- what is refused ----

REFUSED = {
    "another family": (changed(model_type="llamas"), ("'llamas' is not supported", "Did you mean 'llama'?")),
    "no family": (without("model_type"), ("model_type None",)),
    "unhandled field": (changed(sliding_window=4096, zebra=1), ("unhandled config fields sliding_window, zebra",)),
    "quantised": (changed(quantization_config={"bits": 4}), ("quantization_config",)),
    "activation": (changed(hidden_act="relu2"), ("activation", "'relu2'", "silu")),
    "two ropes": (
        changed(rope_parameters={"rope_theta": 7.0}, rope_scaling={"type": "linear", "factor": 2}),
        ("rope_scaling and rope_parameters say different things",),
    ),
    "a rope for each kind of layer": (
        changed(rope_parameters={"full_attention": {"rope_theta": 7.0}}),
        ("rope scaling 'default' with the field full_attention",),
    ),
    "a partial rope": (changed(rope_parameters={"partial_rotary_factor": 0.5}), ("partial_rotary_factor",)),
    "factor of zero": (changed(rope_scaling={"type": "linear", "factor": 0}), ("malformed field factor=0",)),
    "no room between": (changed(rope_scaling=LLAMA3 | {"low_freq_factor": 4.0}), ("is not below high_freq_factor",)),
    "rope of zero": (changed(rope_theta=-1.0), ("malformed field rope_theta=-1.0",)),
    "several faults": (changed(zebra=1, hidden_act="relu2"), ("'relu2'", "zebra")),
    "a family in a list": (changed(model_type=["llama"]), ("model_type ['llama'] is not supported",)),
    "a number too long": (changed(rms_norm_eps=10**400), ("malformed field",)),
    "yarn": (changed(rope_scaling={"rope_type": "yarn", "factor": 2.0}), ("'yarn'", "default, linear, llama3")),
    "dynamic": (changed(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4}), ("'dynamic'",)),
    "linear without factor": (changed(rope_scaling={"type": "linear"}), ("'factor'",)),
    "llama3 without length": (
        changed(rope_scaling={k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}),
        ("'original_max_position_embeddings'",),
    ),
    "rope scaling as text": (changed(rope_scaling="linear"), ("malformed field rope_scaling='linear'",)),
    "rope as text": (changed(rope_parameters="linear"), ("malformed field rope_parameters='linear'",)),
    "size as text": (changed(intermediate_size="big"), ("malformed field intermediate_size='big'",)),
    "width with a point": (changed(hidden_size=32.0), ("malformed field hidden_size=32.0",)),
    "size of zero": (changed(num_hidden_layers=0), ("malformed field num_hidden_layers=0",)),
    "layers without end": (changed(num_hidden_layers=10**12), ("num_hidden_layers=1000000000000", "above 4,096")),
    "windows of layers without end": (
        changed(model_type="mistral", num_hidden_layers=10**12),
        ("num_hidden_layers=1000000000000", "above 4,096"),
    ),
    "more positions than there are": (changed(max_position_embeddings=2**31), ("above 2,147,483,647",)),
    "an end of text beyond all tokens": (changed(eos_token_id=2**31), ("eos_token_id",)),
    "no heads": (changed(num_attention_heads=0), ("num_attention_heads=0",)),
    "a truth for a size": (changed(vocab_size=True), ("vocab_size=True",)),
    "odd grouping": (changed(num_key_value_heads=3), ("4 attention heads", "3 key/value heads")),
    "odd head": (changed(head_dim=7), ("head_dim", "7", "even")),
    "eos as text": (changed(eos_token_id="</s>"), ("eos_token_id", "'</s>'")),
} | {name: (without(name), (f"'{name}'", "missing")) for name in RAW if name != "model_type"}


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals_name_the_file_and_the_field(fault):
    raw, named = REFUSED[fault]
    with refused(str(PATH), *named):
        from_hf(raw, PATH)


# ---- files ----


def write(folder: Path, config: object, generation: object = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    ("own", "generation", "ids"),
    [
        (None, None, ()),
        (2, None, (2,)),
        (2, 2, (2,)),
        (2, [5, 2], (2, 5)),
        (None, [5, 6], (5, 6)),
        ([2, 3], None, (2, 3)),
    ],
)
def test_end_of_text_ids_of_both_files(tmp_path, own, generation, ids):
    write(tmp_path, changed(eos_token_id=own), {"eos_token_id": generation})
    assert read_config(tmp_path).eos_ids == ids


def test_without_a_generation_config(tmp_path):
    assert read_config(write(tmp_path, RAW)) == from_hf(RAW)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"{", b'["llama"]', b"\xff\xfe{}", b'{"a":' + b"[" * 100_000])
def test_a_broken_file_is_named(tmp_path, name, content):
    (write(tmp_path, RAW, {}) / name).write_bytes(content)
    with refused(str(tmp_path / name), "JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_file_longer_than_any_is_not_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(json_files, "MOST_BYTES", 1000)
    (write(tmp_path, RAW, {}) / name).write_text(json.dumps(RAW) + " " * 1000)
    with refused(str(tmp_path / name), "longer than any", "1,000 bytes"):
        read_config(tmp_path)


def test_a_missing_config_is_named(tmp_path):
    with refused(f"{tmp_path / 'config.json'} is missing", "safetensors"):
        read_config(tmp_path)


def test_an_odd_generation_config_is_named(tmp_path):
    with refused(str(tmp_path / "generation_config.json"), "eos_token_id"):
        read_config(write(tmp_path, RAW, {"eos_token_id": "</s>"}))


# ---- rope's frequencies ----


def frequencies(e: int, theta: float, scaling: RopeScaling | None = None) -> list[float]:
    config = LMConfig("llama", vocabulary=1, d=e, f=1, h=1, g=1, e=e, num_layers=1, norm_eps=0.0, rope_theta=theta)
    return inverse_frequencies(dataclasses.replace(config, rope_scaling=scaling))


def test_plain_and_linear_frequencies():
    assert frequencies(6, 1000.0) == pytest.approx([1, 0.1, 0.01])
    assert frequencies(6, 1000.0, RopeScaling("linear", 4.0)) == pytest.approx([0.25, 0.025, 0.0025])


def test_llama3_keeps_fast_frequencies_divides_slow_ones_and_blends_between():
    scaled = frequencies(6, 125.0, RopeScaling("llama3", 8.0, low=1.0, high=4.0, original_length=63))
    turns = 63 * 0.2 / (2 * math.pi)  # 2.005: of the frequencies 1, 0.2, 0.04 only the second lies between 1 and 4
    keep = (turns - 1) / (4 - 1)
    assert scaled == pytest.approx([1, 0.2 * keep + 0.2 / 8 * (1 - keep), 0.04 / 8])
