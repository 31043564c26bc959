"""zsRE on Llama-3-8B-Instruct with the published settings.

The model is a local Hugging Face directory, the data are local files:

    python launch.py --config=configs/zsre_llama.py --config.model.name_or_path=Meta-Llama-3-8B-Instruct \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

The paper's longest run is 600 batches of 30 edits: `--config.num_seq=600 --config.dataset.n_edits=30`.
"""

from __future__ import annotations

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = common.get_config(arg)
    config.dataset.name = "zsre"
    config.dataset.n_edits = 10
    config.model.name_or_path = "meta-llama/Meta-Llama-3-8B-Instruct"
    config.model.dtype = "bfloat16"
    return config
