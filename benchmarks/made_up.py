"""Models with random weights: for timing sizes whose real weights are not at hand.

A folder with `config.json` and a tokenizer is enough; no scores of such a model mean anything.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from emsedit_jax.errors import InputError
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import read_folder
from emsedit_jax.lm.model import LM, load_tokenizer
from emsedit_jax.lm.params import Params, Spec, abstract, is_spec

SPREAD = 0.02  # standard deviation of the matrices


def lm(folder: Path, dtype: str) -> LM:
    """The model that the folder describes, its weights drawn on the device. Raises InputError as `load_lm` does."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json; a made-up model takes that and a tokenizer.")
    config, _ = read_folder(folder)
    config = dataclasses.replace(config, dtype="bfloat16" if dtype == "auto" else dtype)
    return LM(config, draw(config), load_tokenizer(folder), folder)


def draw(config: LMConfig) -> Params:
    """`params.init` on the device, a leaf at a time: on the host a large model would take minutes."""
    specs, tree = jax.tree.flatten(abstract(config), is_leaf=is_spec)
    keys = jax.random.split(jax.random.key(0), len(specs))
    return jax.tree.unflatten(tree, [_leaf(spec, key) for spec, key in zip(specs, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def _leaf(spec: Spec, key: jax.Array) -> jax.Array:
    if len(spec.shape) == 1:
        return jnp.ones(spec.shape, spec.dtype)
    return (SPREAD * jax.random.normal(key, spec.shape, jnp.bfloat16)).astype(spec.dtype)
