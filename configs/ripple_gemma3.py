"""RippleEdits on Gemma-3-270M: 10 batches of 10 edits, rows in file order.

    python launch.py --config=configs/ripple_gemma3.py --config.model.accept_terms \
        --config.dataset.train_path=ripple_effect_train.json --config.dataset.valid_path=ripple_effect_eval.json

The model's terms of use (Gemma) have to be accepted once, by the flag; it is then fetched and kept.

Any editor, with any number of edit steps: `--config=configs/ripple_gemma3.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import gemma3


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return gemma3.get_config(arg, "ripple_effect")
