"""CounterFact on Mistral-7B-Instruct-v0.3: the published settings, 20 batches of 20 edits one after the other.

    python launch.py --config=configs/counterfact_mistral.py \
        --config.dataset.train_path=counterfact_train.json --config.dataset.valid_path=counterfact_eval.json

The model comes from the hub, or from a folder: `--config.model.name_or_path=FOLDER`. Its weights take 14.5 GB
(bfloat16); time and scores were not measured.
"""

from __future__ import annotations

import ml_collections

from configs import models


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return models.get_config(arg, "counterfact", "mistral")
