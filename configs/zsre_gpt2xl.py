"""zsRE on GPT-2-XL: the published settings, 20 batches of 10 edits one after the other.

    python launch.py --config=configs/zsre_gpt2xl.py \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

The model comes from the hub, or from a folder: `--config.model.name_or_path=FOLDER`. Its weights take 6.2 GB
(float32); time and scores were not measured.
"""

from __future__ import annotations

import ml_collections

from configs import models


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return models.get_config(arg, "zsre", "gpt2xl")
