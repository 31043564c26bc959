"""RippleEdits on SmolLM2-135M: 10 batches of 10 edits, rows in file order.

    python launch.py --config=configs/ripple_smollm2.py \
        --config.dataset.train_path=ripple_effect_train.json --config.dataset.valid_path=ripple_effect_eval.json

Any editor, with any number of edit steps: `--config=configs/ripple_smollm2.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import smollm2


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return smollm2.get_config(arg, "ripple_effect")
