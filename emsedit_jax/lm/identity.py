"""Which model a file of edits or networks belongs to, told by the weights: names and folders change, weights do not."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.lm.params import Params

SEEDS = (np.uint32(0x9E3779B9), np.uint32(0x3C6EF372))  # of the two sums over each parameter
SCHEME = "all-"  # before a digest: it is of all numbers
PIECE = 2**20  # numbers that are added at a time
EXPONENT = 0x7F80  # of a bfloat16


class Identity(NamedTuple):
    """A model's name, for people, and a digest of its weights, which decides."""

    name: str
    weights: str

    def __str__(self) -> str:
        return f"{self.name} (weights {self.weights})"

    def about(self) -> dict[str, str]:
        """What a file says of its model."""
        return {"model": self.name, "weights": self.weights}

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> Identity:
        """The model that a file says it belongs to; one that says nothing belongs to none."""
        return cls(str(about.get("model", "no model")), str(about.get("weights", "unknown")))

    def remedy(self, about: Mapping[str, Any], usual: str) -> str:
        """What to do about a file of another model; of an earlier version's file it can't be told whose it is."""
        sampled = re.fullmatch("[0-9a-f]{16}", self.read(about).weights)
        return "an earlier version, which told models apart otherwise, wrote it: make it again" if sampled else usual

    def is_of(self, about: Mapping[str, Any]) -> bool:
        """Whether a file belongs to this model."""
        return self.weights == self.read(about).weights


def identify(name: str, params: Params) -> Identity:
    """The digest covers every parameter's place and shape and every number, rounded to bfloat16.

    So the same model has the same digest in float32 and bfloat16, under any name and on any number of devices; of a
    float32 weight, what bfloat16 rounds off is not seen: `exact` sees it.
    """
    return Identity(name, SCHEME + _digest(params, exact=False)[:16])


def exact(params: Params) -> str:
    """A digest of every bit of the weights as they are loaded, the same on any number of devices.

    It tells whether a run that goes on has the weights that it began with, where `identify` tells whose edits fit.
    """
    return _digest(params, exact=True)


def _digest(params: Params, exact: bool) -> str:
    found = hashlib.sha256()
    sums = jax.device_get([[_sum(leaf, seed, exact) for seed in SEEDS] for leaf in jax.tree.leaves(params)])
    for (path, leaf), sums_2 in zip(jax.tree_util.tree_leaves_with_path(params), sums, strict=True):
        found.update(f"{jax.tree_util.keystr(path)}{list(leaf.shape)}".encode())
        found.update(np.ascontiguousarray(sums_2).tobytes())
    return found.hexdigest()


@functools.partial(jax.jit, static_argnums=2)
def _sum(leaf: jax.Array, seed: jax.Array | np.uint32, exact: bool) -> jax.Array:
    """The sum of a parameter's bits, each number's times an odd one that its place gives, modulo 2^32.

    Whole numbers add up to the same in any order, over any devices; a single changed number always changes it. On one
    device they are added piece by piece, as XLA may keep all that is added, which takes more than the parameter.
    """
    if not sharding.alone() or leaf.size <= PIECE:
        return _part(leaf, np.uint32(0), seed, exact)
    if leaf.dtype == jnp.bfloat16 or (exact and leaf.dtype == jnp.float16):
        leaf = _bits(leaf)  # (a CPU would make all of it float32)
    row = leaf.size // leaf.shape[0]
    step = max(1, PIECE // row)
    whole = leaf.shape[0] // step

    def add(m: jax.Array, total: jax.Array) -> jax.Array:
        piece = jax.lax.dynamic_slice_in_dim(leaf, m * step, step)
        return total + _part(piece, m.astype(jnp.uint32) * np.uint32(step * row % 2**32), seed, exact)

    total = jax.lax.fori_loop(0, whole, add, jnp.uint32(0))
    return total + _part(leaf[whole * step :], np.uint32(whole * step * row % 2**32), seed, exact)


def _part(leaf: jax.Array, place: jax.Array | np.uint32, seed: np.uint32 | jax.Array, exact: bool) -> jax.Array:
    """The same of some rows, the first number of which has the place."""
    taken = leaf if exact or leaf.dtype == jnp.uint16 else leaf.astype(jnp.bfloat16)
    bits = _bits(taken).astype(jnp.uint32)
    if not exact:  # (some devices keep no subnormal numbers when they round)
        bits = jnp.where(bits & EXPONENT == 0, jnp.zeros_like(bits), bits)
    places, stride = jnp.full_like(bits, place), 1
    for axis in reversed(range(leaf.ndim)):
        places += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * np.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    return jnp.sum(bits * (_mixed(places + seed) | 1), dtype=jnp.uint32)


def _bits(leaf: jax.Array) -> jax.Array:
    """Numbers as the whole numbers that their bits are; those stay as they are."""
    if jnp.issubdtype(leaf.dtype, jnp.unsignedinteger):
        return leaf
    return jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))


def _mixed(x: jax.Array) -> jax.Array:
    """Numbers that look drawn, one for each: the end of MurmurHash3."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
