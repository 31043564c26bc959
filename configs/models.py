"""The published models: where each is to be had, and which of its linear maps are edited.

One row a model; `configs/<data set>_<model>.py` puts a row together with a data set.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_collections

from configs import common
from emsedit_jax.run import defaults

N_EDITS = {"zsre": 10}  # facts of an edit batch; the other data sets have 20


class Model(NamedTuple):
    """A model of the published experiments."""

    name: str  # on the hub
    sites: tuple[str, ...]
    batch_sites: tuple[str, ...] = ()  # in batch mode, where they are others
    dtype: str = "bfloat16"


MODELS = {
    "llama": Model("meta-llama/Meta-Llama-3-8B-Instruct", defaults.LLAMA_SITES),
    "gptj": Model(
        "EleutherAI/gpt-j-6b",
        ("transformer.h.{10,12,14,16,18,20,22,24,26}.mlp.fc_in",),
        ("transformer.h.{22..27}.mlp.fc_out",),
    ),
    "gemma": Model(
        "google/gemma-2-9b-it",
        ("model.layers.{32..40}.mlp.gate_proj", "model.layers.{32..40}.mlp.up_proj"),
        ("model.layers.{32..40}.mlp.down_proj",),
    ),
    "gpt2xl": Model("openai-community/gpt2-xl", ("transformer.h.{6..11}.mlp.c_proj",), dtype="float32"),
    "mistral": Model("mistralai/Mistral-7B-Instruct-v0.3", ("model.layers.{17..19}.mlp.down_proj",)),
    "qwen": Model("Qwen/Qwen2.5-7B-Instruct", ("model.layers.{17..19}.mlp.down_proj",)),
}


def get_config(arg: str, dataset: str, model: str) -> ml_collections.ConfigDict:
    """The published settings of a data set on a model; `mode=batch` in `arg` takes one batch and its sites."""
    config, row = common.get_config(arg), MODELS[model]
    batch = config.num_seq == 1
    config.dataset.name = dataset
    config.dataset.n_edits = N_EDITS.get(dataset, 20)
    config.model.name_or_path = row.name
    config.model.dtype = row.dtype
    config.model.edit_modules = row.batch_sites if batch and row.batch_sites else row.sites
    return config
