"""A real language model's facts change: SmolLM2-135M, 100 facts of the world rewritten, no account, no hub.

The second command edits without training first:

    python launch.py --config=configs/quickstart.py
    python launch.py --config=configs/quickstart.py:editor=ultraedit
"""

from __future__ import annotations

import ml_collections

from configs import common

LR = {"emsedit": 1e-3, "ultraedit": 1e-3}  # initial eta: this model's keys are shorter than an 8B model's


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = common.get_config(arg)
    config.num_seq = 10
    config.dataset.n_edits = 10
    config.editor.lr = LR[config.editor.name]
    if config.editor.name == "emsedit":
        config.editor.rank = 256
    return config
