"""Edits as files beside a model that stays as it is: the weight changes alone, or as a LoRA adapter that PEFT loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from emsedit_jax import disk, sharding
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import FAMILIES
from emsedit_jax.types import Deltas, Sites

DELTAS, ADAPTER, ADAPTER_CONFIG = "deltas.safetensors", "adapter_model.safetensors", "adapter_config.json"


class LowRank(NamedTuple):
    """A weight change as the product `a_rk^T b_rv`."""

    a_rk: Float[np.ndarray, "r k"]
    b_rv: Float[np.ndarray, "r v"]


def write_deltas(target: Path, config: LMConfig, sites: Sites, deltas: Deltas, about: Mapping[str, Any]) -> Path:
    """Writes the changes alone, float32, named and turned as Hugging Face has the weights: add them up yourself.

    The folder `target` appears whole or not at all. Raises InputError where it holds something, or the disk refuses.
    """
    first, found = FAMILIES[config.family].inputs_first, {}
    for group, delta_skv in zip(sites, deltas, strict=True):
        for s, name in enumerate(group.names):
            delta_kv = sharding.host(delta_skv[s])
            found[f"{name}.weight"] = np.ascontiguousarray(delta_kv if first else delta_kv.T)
    metadata = {"format": "pt", "emsedit_jax": json.dumps(dict(about), sort_keys=True)}
    with disk.new_folder(target) as work:
        disk.save_arrays(found, work / DELTAS, metadata=metadata)
        disk.write_sums(work)
    return target / DELTAS


def write_lora(target: Path, config: LMConfig, changes: Mapping[str, LowRank], base: str) -> Path:
    """Writes an adapter folder as PEFT has it: site name -> its change; each site may have a rank of its own.

    The folder `target` appears whole or not at all. Raises InputError where it holds something, or the disk refuses.
    """
    ranks = {name: len(one.a_rk) for name, one in changes.items()}
    tensors = {}
    for name, (a_rk, b_rv) in changes.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.ascontiguousarray(a_rk)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.ascontiguousarray(b_rv.T)
    most = max(ranks.values())
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,  # the changes are scaled by alpha / r
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": FAMILIES[config.family].inputs_first,
        "target_modules": sorted(changes),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
    }
    with disk.new_folder(target) as work:
        disk.save_arrays(tensors, work / ADAPTER, metadata={"format": "pt"})
        (work / ADAPTER_CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        disk.write_sums(work)
    return target


def low_rank(delta_kv: Float[np.ndarray, "k v"]) -> LowRank:
    """The change in as few factors as float32 can tell from it."""
    u_kr, size_r, w_rv = np.linalg.svd(delta_kv.astype(np.float64), full_matrices=False)
    kept = max(1, int(np.sum(size_r > size_r[0] * max(delta_kv.shape) * np.finfo(np.float32).eps)))
    root_r = np.sqrt(size_r[:kept])
    halves = (root_r[:, None] * u_kr[:, :kept].T, root_r[:, None] * w_rv[:kept])
    return LowRank(*(half.astype(np.float32) for half in halves))
