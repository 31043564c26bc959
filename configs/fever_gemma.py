"""FEVER on Gemma-2-9B-it: the published settings, 20 batches of 20 edits one after the other.

    python launch.py --config=configs/fever_gemma.py \
        --config.dataset.train_path=fever_train.json --config.dataset.valid_path=fever_eval.json

The model comes from the hub, or from a folder: `--config.model.name_or_path=FOLDER`. Its weights take 18.5 GB
(bfloat16); time and scores were not measured.

Batch mode edits other sites: `--config=configs/fever_gemma.py:mode=batch --config.dataset.n_edits=1024`.
"""

from __future__ import annotations

import ml_collections

from configs import models


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return models.get_config(arg, "fever", "gemma")
