"""Writing back: an edited model as a normal Hugging Face directory, in the shards and the dtype of its source."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from emsedit_jax import disk, sharding
from emsedit_jax.errors import InputError
from emsedit_jax.lm import hf
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import FAMILIES
from emsedit_jax.types import Deltas, Sites

COPIED = (".json", ".txt", ".model", ".jinja", ".md")  # config, tokenizer, generation settings, the model's card
TEMPLATES = "additional_chat_templates"  # a folder that tokenizers may have
LEFT = ("asset.json",)  # of the cache, not of the model


def export(source: Path, target: Path, config: LMConfig, sites: Sites, deltas: Deltas) -> Path:
    """Writes `source` with the edits in its weights to the new folder `target`, whole or not at all.

    Each edited weight is added up in float32 and rounded once, to the dtype that it is stored in. One shard at a time
    is in memory, and the change of one weight, brought from the devices that share it.

    Raises InputError where `target` holds something, the source has no such weights, or the disk refuses.
    """
    files = hf.weight_files(source)
    changes = _changes(config, sites, deltas, files)
    with disk.new_folder(target) as work:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in LEFT and _is_small(path):
                shutil.copyfile(path, work / path.name)
        if (source / TEMPLATES).is_dir():
            shutil.copytree(source / TEMPLATES, work / TEMPLATES)
        for path in sorted(set(files.values())):
            _write_shard(path, work / path.name, changes)
        disk.write_sums(work)
    return target


def _is_small(path: Path) -> bool:
    if path.match("*.bin.index.json"):  # of pickles, which stay behind
        return False
    return path.suffix in COPIED or path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))


def _changes(
    config: LMConfig, sites: Sites, deltas: Deltas, files: Mapping[str, Path]
) -> dict[str, Callable[[], np.ndarray]]:
    """Name of a tensor in the files -> what brings its change, turned as the files have it."""
    family, found = FAMILIES[config.family], {}
    for group, delta_skv in zip(sites, deltas, strict=True):
        for s, module in enumerate(group.names):
            full = f"{module}.weight"
            name = full if full in files else full.removeprefix(f"{family.base}.")  # of a bare model's checkpoint
            if name not in files:
                raise InputError(f"the model's files have no {full}, which the edits change.")
            found[name] = functools.partial(_change, delta_skv, s, family.inputs_first)
    return found


def _change(delta_skv: jax.Array, s: int, inputs_first: bool) -> np.ndarray:
    delta_kv = sharding.host(delta_skv[s])
    return delta_kv if inputs_first else delta_kv.T


def _write_shard(source: Path, target: Path, changes: Mapping[str, Callable[[], np.ndarray]]) -> None:
    tensors = {}
    with hf.open_file(source) as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            weight = file.get_tensor(name)
            if name in changes:
                weight = (weight.astype(np.float32) + changes[name]()).astype(weight.dtype)
            tensors[name] = np.ascontiguousarray(weight)
        metadata = file.metadata() or {"format": "pt"}
    disk.save_arrays(tensors, target, metadata=metadata)
