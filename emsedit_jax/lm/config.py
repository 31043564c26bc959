"""The static description of a language model, read from a Hugging Face `config.json`; it picks the compiled program."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from emsedit_jax.errors import InputError, near


class RopeScaling(NamedTuple):
    """Llama 3.1's stretching of the slow rope frequencies; `linear` (all of them divided) is `low == high == 0`."""

    kind: str  # "linear" or "llama3"
    factor: float
    low: float = 0.0
    high: float = 0.0
    original_length: int = 0


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """Sizes and switches of a decoder; hashable. Widths in numbers of features."""

    family: str
    vocabulary: int
    d: int
    f: int
    h: int
    g: int
    e: int
    num_layers: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    activation: str = "silu"
    tied_head: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    max_length: int = 2048
    eos_ids: tuple[int, ...] = ()
    dtype: str = "float32"


# Fields that change nothing here: training, file keeping, caching, and dropout (never applied).
IGNORED = frozenset(
    [
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "initializer_range",
        "is_llama_config",
        "is_decoder",
        "is_encoder_decoder",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "problem_type",
        "return_dict",
        "rope_interleaved",
        "torch_dtype",
        "dtype",
        "torchscript",
        "transformers_version",
        "transformers.js_config",
        "unsloth_fixed",
        "use_bfloat16",
        "use_cache",
        "id2label",
        "label2id",
    ]
)


def _size(raw: dict, name: str, default: int | None = None) -> int:
    """Takes a positive whole number; `null` counts as left out."""
    value = raw.pop(name, None)
    value = default if value is None else value
    if value is None:
        raise KeyError(name)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r}")
    return value


def _rope_scaling(raw: Any, path: pathlib.Path) -> RopeScaling | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise TypeError(f"rope_scaling={raw!r}")
    kind = raw.get("rope_type", raw.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(raw["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(raw["factor"]),
            float(raw["low_freq_factor"]),
            float(raw["high_freq_factor"]),
            int(raw["original_max_position_embeddings"]),
        )
    raise InputError(f"{path}: rope scaling {kind!r} is not supported (supported: default, linear, llama3).")


def _dtype(raw: dict) -> str:
    return str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch.")


def _eos_ids(value: Any, path: pathlib.Path) -> tuple[int, ...]:
    ids = () if value is None else tuple(value) if isinstance(value, list) else (value,)
    if any(type(one) is not int for one in ids):
        raise InputError(f"{path}: eos_token_id {value!r} is neither a token id nor a list of token ids.")
    return ids


def _llama(raw: dict, path: pathlib.Path) -> LMConfig:
    """Llama 2 and 3, and models published in Llama's form (SmolLM2). `raw` loses every field that is handled."""
    take = raw.pop
    rope = take("rope_parameters", None)  # the newer layout keeps theta and scaling together
    theta, scaling = take("rope_theta", None), take("rope_scaling", None)
    if rope is not None:
        if not isinstance(rope, dict):
            raise TypeError(f"rope_parameters={rope!r}")
        theta, scaling = rope.get("rope_theta", theta), rope
    if take("pretraining_tp", 1) not in (1, None):
        raise InputError(f"{path}: pretraining_tp other than 1 is not supported.")
    activation = take("hidden_act", "silu")
    if activation != "silu":
        raise InputError(f"{path}: activation (hidden_act) {activation!r} is not supported (supported: silu).")
    heads, width = _size(raw, "num_attention_heads"), _size(raw, "hidden_size")
    return LMConfig(
        family="llama",
        vocabulary=_size(raw, "vocab_size"),
        d=width,
        f=_size(raw, "intermediate_size"),
        h=heads,
        g=_size(raw, "num_key_value_heads", heads),
        e=_size(raw, "head_dim", width // heads),
        num_layers=_size(raw, "num_hidden_layers"),
        norm_eps=float(take("rms_norm_eps", 1e-6)),
        rope_theta=float(theta or 10_000.0),
        rope_scaling=_rope_scaling(scaling, path),
        activation=activation,
        tied_head=bool(take("tie_word_embeddings", False)),
        attention_bias=bool(take("attention_bias", False)),
        mlp_bias=bool(take("mlp_bias", False)),
        max_length=_size(raw, "max_position_embeddings", 2048),
        eos_ids=_eos_ids(take("eos_token_id", None), path),
        dtype=_dtype(raw),
    )


FAMILIES: dict[str, Callable[[dict, pathlib.Path], LMConfig]] = {"llama": _llama}


def from_hf(raw: dict, path: pathlib.Path = pathlib.Path("config.json")) -> LMConfig:
    """LMConfig from the content of a `config.json`.

    Raises InputError for an unknown `model_type`, a missing field, and fields neither handled nor knowingly ignored.
    """
    raw = dict(raw)
    family = raw.get("model_type")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(
            f"{path}: model_type {family!r} is not supported (supported: {known}).{near(str(family), FAMILIES)}"
        )
    try:
        config = FAMILIES[family](raw, path)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: missing or malformed field {error}; is this a complete {family} config?") from error
    left = sorted(key for key, value in raw.items() if key not in IGNORED and value not in (None, False, {}, []))
    if left:
        raise InputError(f"{path}: unhandled config fields {', '.join(left)}: the model would be computed wrongly.")
    if config.h % config.g:
        raise InputError(f"{path}: {config.h} attention heads cannot share {config.g} key/value heads evenly.")
    if config.e % 2:
        raise InputError(f"{path}: a head width (head_dim) of {config.e} cannot be turned by rope; it must be even.")
    return config


def read_config(folder: pathlib.Path) -> LMConfig:
    """LMConfig of a Hugging Face model folder; end-of-text ids are completed from `generation_config.json`."""
    config = from_hf(_json(folder / "config.json"), folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.exists():
        extra = _eos_ids(_json(generation).get("eos_token_id"), generation)
        config = dataclasses.replace(config, eos_ids=tuple(dict.fromkeys((*config.eos_ids, *extra))))
    return config


def _json(path: pathlib.Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; give a folder with config.json, *.safetensors and tokenizer.json."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold a JSON object.")
    return content


def inverse_frequencies(config: LMConfig) -> list[float]:
    """Rope's angle per position for each of the e / 2 feature pairs, in radians, after the family's scaling."""
    plain = [config.rope_theta ** (-2 * j / config.e) for j in range(config.e // 2)]
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return [w / scaling.factor for w in plain]
    return [_llama3_frequency(w, scaling) for w in plain]


def _llama3_frequency(w: float, scaling: RopeScaling) -> float:
    """Slow frequencies are divided by `factor`, fast ones kept, those between blended (Llama 3.1)."""
    turns = scaling.original_length * w / (2 * math.pi)  # full turns over the length the model was trained on
    if turns > scaling.high:
        return w
    if turns < scaling.low:
        return w / scaling.factor
    keep = (turns - scaling.low) / (scaling.high - scaling.low)
    return keep * w + (1 - keep) * w / scaling.factor
