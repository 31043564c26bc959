"""The model families: for each, how its `config.json` is read and what its weights are called. A family is one row."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from emsedit_jax.errors import InputError, near
from emsedit_jax.lm import json_files
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import gemma, gpt, llama
from emsedit_jax.lm.families.fields import Fields, read_eos_ids


class Family(NamedTuple):
    """How one family's files are read."""

    read: Callable[[Fields], LMConfig]
    table: dict[str, str]  # our module path -> published module name
    base: str = "model"  # the prefix that checkpoints of the bare model leave out
    inputs_first: bool = False  # linear weights are stored [inputs, outputs], as they are used here
    buffers: tuple[str, ...] = (".rotary_emb.inv_freq",)  # endings of stored constants, which are computed here


FAMILIES: dict[str, Family] = {  # by model_type
    "llama": Family(llama.read_llama, llama.TABLE),
    "mistral": Family(llama.read_mistral, llama.TABLE),
    "qwen2": Family(llama.read_qwen2, llama.TABLE),
    "qwen3": Family(llama.read_qwen3, llama.TABLE | llama.QK_NORMS),
    "smollm3": Family(llama.read_smollm3, llama.TABLE),
    "gemma2": Family(gemma.read_gemma2, gemma.TABLE),
    "gemma3_text": Family(gemma.read_gemma3, gemma.TABLE | llama.QK_NORMS),
    "gpt2": Family(gpt.read_gpt2, gpt.GPT2, "transformer", inputs_first=True, buffers=gpt.BUFFERS),
    "gptj": Family(gpt.read_gptj, gpt.GPTJ, "transformer", buffers=gpt.BUFFERS),
}


def from_hf(raw: dict, path: pathlib.Path = pathlib.Path("config.json")) -> LMConfig:
    """LMConfig from the content of a `config.json`.

    Raises InputError for an unknown `model_type`, a missing field, and fields neither handled nor knowingly ignored.
    """
    config, faults = read_fields(raw, path)
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}.")
    return config


def read_fields(raw: dict, path: pathlib.Path) -> tuple[LMConfig, list[str]]:
    """(LMConfig, what is wrong with it all the same): values that are not supported, fields that nobody knows.

    Raises InputError for an unknown `model_type`, a missing or malformed field.
    """
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(
            f"{path}: model_type {family!r} is not supported (supported: {known}).{near(str(family), FAMILIES)}"
        )
    fields = Fields(raw, path)
    try:
        config = FAMILIES[family].read(fields)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: missing or malformed field {error}; is this a complete {family} config?") from error
    if config.h % config.g:
        raise InputError(f"{path}: {config.h} attention heads cannot share {config.g} key/value heads evenly.")
    if not config.learned_positions and (config.turned % 2 or config.turned > config.e):
        raise InputError(
            f"{path}: rope cannot turn {config.turned} features (rotary_dim or head_dim) of heads of width {config.e}: "
            "the number must be even and not above the width."
        )
    left = fields.left()
    unknown = [f"unhandled config fields {', '.join(left)}: the model would be computed wrongly"] if left else []
    return config, fields.refused + unknown


def read_config(folder: pathlib.Path) -> LMConfig:
    """LMConfig of a Hugging Face model folder.

    Raises InputError as `from_hf`, and for a file that is missing or cannot be read.
    """
    config, faults = read_folder(folder)
    if faults:
        raise InputError(f"{folder / 'config.json'}: {'; '.join(faults)}.")
    return config


def read_folder(folder: pathlib.Path) -> tuple[LMConfig, list[str]]:
    """`read_fields` of a Hugging Face model folder; end-of-text ids are completed from `generation_config.json`."""
    config, faults = read_fields(json_files.read(folder / "config.json"), folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.exists():
        extra = read_eos_ids(json_files.read(generation).get("eos_token_id"), generation)
        config = dataclasses.replace(config, eos_ids=tuple(dict.fromkeys((*config.eos_ids, *extra))))
    return config, faults
