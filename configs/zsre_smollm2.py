"""zsRE on SmolLM2-135M: 10 batches of 10 edits, rows in file order.

The data are local files:

    python launch.py --config=configs/zsre_smollm2.py \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

On 2 CPU cores 1 to 2 minutes. ES/GS/LS 19.7/20.6/25.2 before and
79.6/73.9/27.6 after (mean of three seeds).

Any editor, with any number of edit steps: `--config=configs/zsre_smollm2.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import smollm2


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return smollm2.get_config(arg, "zsre")
