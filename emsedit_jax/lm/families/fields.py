"""What the families' readers of `config.json` share: taking a field out, checked; what is left over is unhandled."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from emsedit_jax.errors import InputError
from emsedit_jax.lm.config import RopeScaling
from emsedit_jax.lm.layers import ACTIVATIONS

# Fields that change nothing here: training, file keeping, caching, and dropout (never applied).
IGNORED = frozenset(
    [
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "attn_pdrop",
        "auto_map",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "embd_pdrop",
        "gradient_checkpointing",
        "initializer_range",
        "is_llama_config",
        "is_decoder",
        "is_encoder_decoder",
        "model_type",
        "n_special",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "pad_token_id",
        "predict_special_tokens",
        "pretraining_tp",
        "problem_type",
        "resid_pdrop",
        "return_dict",
        "rope_interleaved",
        "sep_token_id",
        "task_specific_params",
        "tokenizer_class",
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


MOST = 2**31 - 1  # of any size: positions and ids are 32 bits wide
MOST_LAYERS = 4096  # names of all layers' weights are made before a file is looked at; models have about a hundred
LAYERS = ("num_hidden_layers", "n_layer")
LENGTHS = ("original_max_position_embeddings",)
ROPES = {  # kind -> its fields
    "default": LENGTHS,
    "linear": ("factor", *LENGTHS),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", *LENGTHS),
}


class Fields:
    """A config's fields; taking one out says that it is handled."""

    def __init__(self, raw: Mapping[str, Any], path: pathlib.Path):
        self._raw, self.path = dict(raw), path
        self.refused: list[str] = []  # values that are not supported, to be told together

    def left(self) -> list[str]:
        """Names of what was neither taken nor is knowingly ignored, nor switched off."""
        return sorted(k for k, v in self._raw.items() if k not in IGNORED and v not in (None, False, {}, []))

    def take(self, name: str, default: Any = None) -> Any:
        """The value; `null` counts as left out."""
        value = self._raw.pop(name, None)
        return default if value is None else value

    def peek(self, name: str) -> int:
        """A positive whole number that is taken later."""
        return whole(name, self._raw.get(name))

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.take(name, default)
        if value is None:
            raise KeyError(name)
        return whole(name, value)

    def size_or_none(self, name: str, default: int | None = None) -> int | None:
        """A positive whole number; None where it is `null`, the default where it is left out."""
        if name in self._raw and self._raw[name] is None:
            del self._raw[name]
            return None
        return default if name not in self._raw else self.size(name)

    def number(self, name: str, default: float | None = None) -> float:
        """A number, or the default."""
        value = self.take(name, default)
        if value is None:
            raise KeyError(name)
        if isinstance(value, (bool, str)):
            raise TypeError(f"{name}={value!r}")
        return float(value)

    def number_or_none(self, name: str, default: float | None = None) -> float | None:
        """A number; None where it is `null`, the default where it is left out."""
        if name in self._raw and self._raw[name] is None:
            del self._raw[name]
            return None
        return default if name not in self._raw else self.number(name)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false, or the default."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r}")
        return value

    def activation(self, name: str, default: str) -> str:
        """The mlp's activation."""
        chosen = self.take(name, default)
        if chosen not in tuple(ACTIVATIONS):
            self.refused.append(
                f"activation ({name}) {chosen!r} is not supported (supported: {', '.join(ACTIVATIONS)})"
            )
            return default
        return chosen

    def positive(self, name: str, default: float) -> float:
        """A number above 0, or the default."""
        return above_zero(name, self.number(name, default))

    def must_be(self, name: str, *allowed: Any) -> None:
        """Takes a field that only has one meaning here; another value is refused."""
        value = self.take(name, allowed[0])
        if value not in allowed:
            self.refused.append(f"{name}={value!r} is not supported (supported: {allowed[0]!r})")

    def eos_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text."""
        return read_eos_ids(self.take("eos_token_id"), self.path)

    def rope(self, theta: float = 10_000.0) -> tuple[float, RopeScaling | None]:
        """(theta, scaling) in either layout: two fields, or one that keeps them together."""
        both, own_theta, scaling = self.take("rope_parameters"), self.take("rope_theta"), self.take("rope_scaling")
        if both is not None and not isinstance(both, dict):
            raise TypeError(f"rope_parameters={both!r}")
        found = [self.scaling(one) for one in (both, scaling) if one is not None]
        if len(found) == 2 and found[0] != found[1]:
            self.refused.append("rope_scaling and rope_parameters say different things; keep one of them")
        own_theta = (both or scaling or {}).get("rope_theta", own_theta)
        return above_zero("rope_theta", own_theta or theta), found[0] if found else None

    def scaling(self, raw: Any) -> RopeScaling | None:
        """Rope scaling in the words of `config.json`; a kind that is not built is refused."""
        if not isinstance(raw, dict):
            raise TypeError(f"rope_scaling={raw!r}")
        kind = raw.get("rope_type", raw.get("type", "default"))
        names = ROPES.get(kind) if isinstance(kind, str) else None
        if names is None:
            self.refused.append(f"rope scaling {kind!r} is not supported (supported: {', '.join(ROPES)})")
            return None
        whole = {"partial_rotary_factor"} if raw.get("partial_rotary_factor", 1.0) in (None, 1.0) else set()
        unknown = sorted(raw.keys() - {"rope_type", "type", "rope_theta", *whole, *names})
        if unknown:
            self.refused.append(f"rope scaling {kind!r} with the field {unknown[0]} is not supported")
        if kind == "default":
            return None
        if kind == "linear":
            return RopeScaling("linear", above_zero("factor", raw["factor"]))
        factor, low, high = (above_zero(name, raw[name]) for name in ROPES["llama3"][:3])
        if not low < high:
            raise ValueError(f"low_freq_factor={low!r} is not below high_freq_factor={high!r}")
        length = above_zero("original_max_position_embeddings", raw["original_max_position_embeddings"])
        return RopeScaling("llama3", factor, low, high, int(length))

    def windowed(self, num_layers: int) -> tuple[int, ...] | None:
        """The layers that `layer_types` gives a window; None where it is left out."""
        kinds = self.take("layer_types")
        if kinds is None:
            return None
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != num_layers or any(one not in known for one in kinds):
            raise ValueError(f"layer_types={kinds!r}")
        return tuple(layer for layer, one in enumerate(kinds) if one == "sliding_attention")


def whole(name: str, value: Any) -> int:
    """The value as a size. Raises ValueError for what is no whole number, below 1, or above any model's."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r}")
    most = MOST_LAYERS if name in LAYERS else MOST
    if value > most:
        raise ValueError(f"{name}={value!r}, which is above {most:,}")
    return value


def above_zero(name: str, value: Any) -> float:
    """The value as a number. Raises ValueError for one that is not above 0, or none."""
    if isinstance(value, (bool, str)) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name}={value!r}")
    return float(value)


def read_eos_ids(value: Any, path: pathlib.Path) -> tuple[int, ...]:
    """One token id or a list of them. Raises InputError for anything else."""
    ids = () if value is None else tuple(value) if isinstance(value, list) else (value,)
    if any(type(one) is not int or abs(one) > MOST for one in ids):
        raise InputError(f"{path}: eos_token_id {value!r} is neither a token id nor a list of token ids.")
    return ids
