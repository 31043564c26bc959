"""What the Gemma-3-270M configs share: the settings of 10 x 10 edits, sites, and each editor's initial eta."""

from __future__ import annotations

import ml_collections

from configs import common

SITES = ("model.layers.{8..16}.mlp.gate_proj", "model.layers.{8..16}.mlp.up_proj")


def get_config(arg: str, dataset: str) -> ml_collections.ConfigDict:
    """10 batches of 10 facts of a data set that is read by path."""
    config = common.get_config(arg)
    config.num_seq = min(config.num_seq, 10)
    config.dataset.name = dataset
    config.dataset.n_edits = 10
    config.model.name_or_path = "gemma3-270m"
    config.model.edit_modules = SITES
    if "rank" in config.editor:
        config.editor.rank = 256
    return config
