"""Which model a file of edits or networks belongs to, told by the weights: names and folders change, weights do not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.lm.params import Params

SAMPLES = 256  # numbers looked at in each parameter, spread evenly: reading all of a large model would take seconds


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

    def is_of(self, about: Mapping[str, Any]) -> bool:
        """Whether a file belongs to this model."""
        return self.weights == self.read(about).weights


def identify(name: str, params: Params) -> Identity:
    """The digest covers every parameter's place and shape and a sample of its numbers, rounded to bfloat16.

    So the same model has the same digest in float32 and bfloat16, and under any name.
    """
    found = hashlib.sha256()
    samples = jax.device_get(_samples(params))
    for (path, leaf), sample in zip(jax.tree_util.tree_leaves_with_path(params), samples, strict=True):
        found.update(f"{jax.tree_util.keystr(path)}{list(leaf.shape)}".encode())
        found.update(np.ascontiguousarray(sample).tobytes())
    return Identity(name, found.hexdigest()[:16])


@jax.jit
def _samples(params: Params) -> list[jax.Array]:
    def sample(leaf: jax.Array) -> jax.Array:
        step = leaf.size // SAMPLES | 1  # odd, or every sample of a table would come from one column
        places = np.unravel_index(np.arange(0, leaf.size, step), leaf.shape)  # (so no sharded one is gathered)
        return sharding.lay(leaf[places].astype(jnp.bfloat16), None)

    return [sample(leaf) for leaf in jax.tree.leaves(params)]
