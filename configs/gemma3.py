"""What the Gemma-3-270M configs share: the settings of 10 x 10 edits and the sites, in the upper half of 18 layers.

Initial etas are those of SmolLM2-135M, whose keys are of about this length; they were not looked for on this model.
"""

from __future__ import annotations

import ml_collections

from configs import common, smollm2

ETA = smollm2.ETA
SITES = ("model.layers.{8..16}.mlp.gate_proj", "model.layers.{8..16}.mlp.up_proj")


def get_config(arg: str, dataset: str) -> ml_collections.ConfigDict:
    """10 batches of 10 facts of a data set that is read by path."""
    config = common.get_config(arg)
    config.num_seq = min(config.num_seq, 10)
    config.dataset.name = dataset
    config.dataset.n_edits = 10
    config.model.name_or_path = "gemma3-270m"
    config.model.edit_modules = SITES
    config.editor.lr = common.eta(ETA, config.editor.name, config.editor.iters)
    config.eval.generated = smollm2.GENERATED
    config.eval.per_criterion = smollm2.PER_CRITERION
    if "rank" in config.editor:
        config.editor.rank = 256
    return config
