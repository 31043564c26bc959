"""FEVER on GPT-2-XL: the published settings, 20 batches of 20 edits one after the other.

    python launch.py --config=configs/fever_gpt2xl.py \
        --config.dataset.train_path=fever_train.json --config.dataset.valid_path=fever_eval.json

The model comes from the hub, or from a folder: `--config.model.name_or_path=FOLDER`. Its weights take 6.2 GB
(float32); time and scores were not measured.
"""

from __future__ import annotations

import ml_collections

from configs import models


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return models.get_config(arg, "fever", "gpt2xl")
