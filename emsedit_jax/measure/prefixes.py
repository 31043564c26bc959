"""A bounded store of prefixes: a prompt's hidden states below the lowest edit site, which no edit ever changes."""

from __future__ import annotations

import collections
from collections.abc import Hashable

import jax
import numpy as np
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit.capture import prefix
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.types import Batch, Sites


class PrefixStore:
    """Keeps prefixes in host memory, the least recently used one going first when `limit_mb` is full.

    A prefix is always computed for a whole packed batch of the run's one shape, so that no bit of it depends on what
    was kept or dropped.
    """

    def __init__(self, config: LMConfig, sites: Sites, params: Params, limit_mb: float | int):
        self._config, self._sites, self._params = config, sites, params
        self._limit, self._held = limit_mb * 2**20, 0
        self._kept: collections.OrderedDict[Hashable, np.ndarray | jax.Array | sharding.Apart]
        self._kept = collections.OrderedDict()
        self._sizes: dict[Hashable, int] = {}  # bytes of each
        self._on_host = jax.default_backend() == "cpu"
        self._arriving: Hashable = None  # the key of what is still on its way to the host
        self.hits, self.misses = 0, 0

    @property
    def hit_rate(self) -> float | None:
        """Share of the prefixes asked for that were there; None before any."""
        asked = self.hits + self.misses
        return round(self.hits / asked, 4) if asked else None

    def get(self, key: Hashable, batch: Batch) -> Float[Array, "m d"]:
        """The batch's prefix; `key` must name this batch and no other."""
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            found = self._kept[key]
            return found.together() if isinstance(found, sharding.Apart) else jax.numpy.asarray(found)
        self.misses += 1
        prefix_md = prefix(self._config, self._sites, self._params, batch)
        size = prefix_md.nbytes // jax.process_count()  # (each process holds its own devices' part)
        if size <= self._limit:
            self._keep(key, prefix_md)
            self._sizes[key] = size
            self._held += size
            while self._held > self._limit:
                self._drop(next(iter(self._kept)))
        return prefix_md

    def _drop(self, key: Hashable) -> None:
        del self._kept[key]
        self._held -= self._sizes.pop(key)

    def _keep(self, key: Hashable, prefix_md: Array) -> None:
        """In host memory, without waiting for it: it is there when the next one comes."""
        self._kept[key] = prefix_md
        if self._on_host:
            return
        prefix_md.copy_to_host_async()
        if self._arriving in self._kept:
            arrived = self._kept[self._arriving]
            assert isinstance(arrived, jax.Array)
            self._kept[self._arriving] = np.asarray(arrived) if sharding.alone() else sharding.Apart(arrived)
        self._arriving = key

    def forget(self, *phases: str) -> None:
        """Gives back the memory of keys that name one of these phases first or second: they are over."""
        for key in [key for key in self._kept if isinstance(key, tuple) and set(key[:2]) & set(phases)]:
            self._drop(key)
