"""A run's edited model, from its workdir: for exports, and for programs that ask it other questions."""

from __future__ import annotations

from typing import NamedTuple

import ml_collections

from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.lm import model
from emsedit_jax.lm.identity import Identity, identify
from emsedit_jax.lm.model import LM
from emsedit_jax.run import anchor, uneven
from emsedit_jax.run.prepare import say, say_uneven
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, Sites


class Restored(NamedTuple):
    """The model as it was, and the edits apart from it."""

    lm: LM
    sites: Sites
    deltas: Deltas
    base: Identity


def restore(config: ml_collections.ConfigDict, folder: Workdir) -> Restored:
    """Loads both. Raises InputError where there are no edits, or they belong to another model."""
    anchor.check_present(folder)
    lm = model.load_lm(
        config.model.name_or_path,
        config.model.dtype,
        accept_terms=config.model.accept_terms,
        progress=lambda words: say("model", words),
    )
    say_uneven(uneven.of_model(lm.config))
    sites = edit_sites.resolve(lm.config, config.model.edit_modules)
    base = identify(config.model.name_or_path, lm.params)
    deltas = anchor.load(folder, sites, base)
    say("edits", str(folder.edits))
    return Restored(lm, sites, deltas, base)
