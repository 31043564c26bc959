"""zsRE on SmolLM2-135M: 10 batches of 10 edits, rows in file order.

The data are local files:

    python launch.py --config=configs/zsre_smollm2.py \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json
"""

from __future__ import annotations

import ml_collections

from configs import common

# Initial eta: this model's keys are shorter than an 8B model's. Chosen on training rows: 0 to 99 to train on, 200 to 299
# and 300 to 399 to edit and score, best mean of the three scores.
LR = {"emsedit": 3e-4, "ultraedit": 1e-4}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = common.get_config(arg)
    config.num_seq = 10
    config.dataset.name = "zsre"
    config.dataset.n_edits = 10
    config.editor.lr = LR[config.editor.name]
    if config.editor.name == "emsedit":
        config.editor.rank = 256
    return config
