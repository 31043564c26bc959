"""A real language model's facts change: SmolLM2-135M, 100 facts of the world rewritten, no account, no hub.

The second command edits without training first:

    python launch.py --config=configs/quickstart.py
    python launch.py --config=configs/quickstart.py:editor=ultraedit
"""

from __future__ import annotations

import ml_collections

from configs import common

# Chosen on the training facts: rows 0 to 99 to train on, rows 200 to 299 and 300 to 399 to edit and score, best mean of
# the three scores. High layers, because facts of one relation are asked in almost the same words, and lower in the model
# their keys are too much alike; small steps and four of them, for the same reason.
SITES = ("model.layers.{23..29}.mlp.gate_proj", "model.layers.{23..29}.mlp.up_proj")
ITERS = 4
LR = {"emsedit": 2e-4, "ultraedit": 5e-5}  # initial eta: this model's keys are shorter than an 8B model's


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = common.get_config(arg)
    config.num_seq = 10
    config.dataset.n_edits = 10
    config.model.edit_modules = SITES
    config.editor.lr = LR[config.editor.name]
    config.editor.iters = ITERS
    if config.editor.name == "emsedit":
        config.editor.rank = 256
    return config
