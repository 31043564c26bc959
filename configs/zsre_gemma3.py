"""zsRE on Gemma-3-270M: 10 batches of 10 edits, rows in file order.

    python launch.py --config=configs/zsre_gemma3.py --config.model.accept_terms \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

ES/GS/LS on those rows: 24.2/24.2/26.2 unedited, 94.6/88.7/27.3 edited, in about 11 minutes on two slow CPU cores (72
GFLOP/s), most of them for the answers in the model's own words; 4.6 GB.

The model's terms of use (Gemma) have to be accepted once, by the flag; it is then fetched and kept.

Any editor, with any number of edit steps: `--config=configs/zsre_gemma3.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import gemma3


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return gemma3.get_config(arg, "zsre")
