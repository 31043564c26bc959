"""zsRE on Llama-3-8B-Instruct: the published settings, 20 batches of 10 edits one after the other.

    python launch.py --config=configs/zsre_llama.py \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

The model comes from the hub, or from a folder: `--config.model.name_or_path=FOLDER`. Its weights take 16.1 GB
(bfloat16); time and scores were not measured.

The paper's longest run is 600 batches of 30 edits: `--config.num_seq=600 --config.dataset.n_edits=30`.
"""

from __future__ import annotations

import ml_collections

from configs import models


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return models.get_config(arg, "zsre", "llama")
