"""What is measured: a model under edits."""

from __future__ import annotations

from typing import NamedTuple

from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.types import Deltas, Sites


class Edited(NamedTuple):
    """A model under edits, and the store of what no edit changes in it."""

    config: LMConfig
    sites: Sites
    params: Params
    deltas: Deltas
    prefixes: PrefixStore

    @property
    def whole(self) -> tuple[LMConfig, Sites, Params, Deltas]:
        """What a compiled pass is given of it."""
        return self.config, self.sites, self.params, self.deltas
