"""Edits on disk: one safetensors file with a float32 weight change a site, which another process can load."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import arrays
from emsedit_jax.run.ledger_lines import Mark
from emsedit_jax.types import Deltas, Sites


def named(sites: Sites, deltas: Deltas) -> dict[str, np.ndarray]:
    """Published site name -> its change [inputs, outputs]."""
    return {
        name: sharding.host(delta_skv[s])
        for group, delta_skv in zip(sites, deltas, strict=True)
        for s, name in enumerate(group.names)
    }


def save(path: Path, sites: Sites, deltas: Deltas, base: Identity, mark: Mark) -> dict[str, str]:
    """Writes the edits of the model `base` whole or not at all; returns the digests that the file carries too.

    `mark`: how far their ledger went; NO_LEDGER where none is kept.
    """
    about = {**base.about(), "layout": "[inputs, outputs]", "ledger": mark._asdict()}
    return arrays.write(path, named(sites, deltas), "edits", about)


def check_present(path: Path) -> None:
    """Cheap, so that it can be asked before a model is loaded. Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError(f"{path} is missing: this run has saved no edits; run --mode=train first.")


def load(path: Path, sites: Sites, base: Identity, remedy: str = "run the edits again") -> Deltas:
    """The edits in `path`, for exactly these sites of this model.

    Raises InputError for a missing or damaged file, another model, other sites, other shapes, or bytes that changed
    since saving.
    """
    check_present(path)
    about, found = arrays.read(path, "edits", remedy)
    if not base.is_of(about):
        other = base.remedy(about, "give --config.model.name_or_path the model that was edited, as it was then")
        raise InputError(f"{path} holds edits of {Identity.read(about)}, this run has {base}; {other}.")
    expected = {name: (group.k, group.v) for group in sites for name in group.names}
    odd = sorted(found.keys() ^ expected.keys())
    odd += [name for name in expected if name in found and found[name].shape != expected[name]]
    if odd:
        theirs = "--config.model.edit_modules must be that of the run that made them"
        raise InputError(f"{path} holds edits of other layers (for instance {odd[0]}); {theirs}.")
    other = [name for name in expected if found[name].dtype != np.float32]
    if other:
        raise InputError(f"{path} holds {found[other[0]].dtype} numbers at {other[0]}, not float32; {remedy}.")
    stacked = tuple(np.stack([found[name] for name in group.names]) for group in sites)
    return sharding.put(stacked, tuple(sharding.spec_of_edit(group) for group in sites))
