"""Settings that need no config file: which sites, steps and trained networks a model is edited with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.errors import InputError, near
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.hf import published_modules
from emsedit_jax.meta import methods
from emsedit_jax.run import defaults, settings

FOLDER = Path(__file__).parents[1] / "ready"  # of trained networks
INNER = ("gate", "up")  # the maps into a block's inner width, as `lm/` calls them
N_EDITS = 10  # facts of a batch
HOLD = 6  # facts much alike that each edit leaves alone
LESSONS = 100  # of the facts that come with the package, to train on


class Ready(NamedTuple):
    """What is known to do well with a model."""

    sites: tuple[str, ...]
    steps: Mapping[str, tuple[int, float]]  # editor -> (most edit steps, initial eta)
    rank: int  # of the networks, and how many blocks they have
    n_blocks: int
    networks: Mapping[str, str]  # editor -> file of trained networks


READY = {
    "smollm2-135m": Ready(
        ("model.layers.{23..29}.mlp.gate_proj", "model.layers.{23..29}.mlp.up_proj"),
        {"emsedit": (8, 1e-4)},  # small steps, of which an edit takes as many as it needs
        32,
        2,
        {"emsedit": "smollm2-135m.emsedit.safetensors"},
    )
}


def config_of(model: str, editor: str, given: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config of a session: what is ready for the model, else defaults, with the fields `given` by their full names.

    Sites that nobody has named are left empty, to be filled by `fill_sites`. Raises InputError for fields that are not
    known, or hold what they may not.
    """
    if editor not in settings.EDITORS:
        known = ", ".join(settings.EDITORS)
        raise InputError(f"there is no editor {editor!r}; known: {known}.{near(editor, settings.EDITORS)}")
    config = defaults.config(editor)
    config.model.name_or_path, config.eval.further = model, False
    config.dataset.n_edits, config.dataset.hold = N_EDITS, HOLD
    config.model.edit_modules = ()
    if methods.method(editor).rule.ridge is None:
        config.dataset.hold = 0
    known = READY.get(model)
    if known is not None:
        config.model.edit_modules = known.sites
        if "rank" in config.editor:
            config.editor.rank, config.editor.n_blocks = known.rank, known.n_blocks
    if known is not None and editor in known.steps:
        config.editor.iters, config.editor.lr = known.steps[editor]
    else:
        config.editor.grow = "editor.lr" not in given  # the published eta is a guess
    for name, value in given.items():
        if name not in settings.FIELDS or name not in dict(settings.flatten(config)):
            fields = [field for field, _ in settings.flatten(config)]
            raise InputError(f"there is no field {name!r} in the settings of {editor}.{near(name, fields)}")
        if not settings.FIELDS[name].holds(value):
            raise InputError(settings.fault(name, value))
        config.update_from_flattened_dict({name: value})
    return config


def fill_sites(config: ml_collections.ConfigDict, lm: LMConfig) -> None:
    """Where no sites are named: the maps into the blocks' inner width, in the last quarter of the layers."""
    if not config.model.edit_modules:
        first = lm.num_layers - max(lm.num_layers // 4, 1)
        found = {name: place for name, place in published_modules(lm).items() if place[0] >= first}
        config.model.edit_modules = tuple(name for name, (_, module) in found.items() if module.split(".")[-1] in INNER)
    settings.check(config)


def networks_of(config: ml_collections.ConfigDict) -> Path | None:
    """The trained networks that come with the package for this config, if there are any and nothing else is named."""
    known = READY.get(config.model.name_or_path)
    if known is None or config.editor.name not in known.networks:
        return None
    same = tuple(config.model.edit_modules) == known.sites and config.editor.iters == known.steps[config.editor.name][0]
    path = FOLDER / known.networks[config.editor.name]
    sizes = config.editor.rank, config.editor.n_blocks
    return path if same and sizes == (known.rank, known.n_blocks) and path.is_file() else None
