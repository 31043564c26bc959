"""CounterFact on SmolLM2-135M: 10 batches of 10 edits, rows in file order.

The data are local files:

    python launch.py --config=configs/counterfact_smollm2.py \
        --config.dataset.train_path=counterfact_train.json --config.dataset.valid_path=counterfact_eval.json

On 2 CPU cores about 50 seconds. ES/GS/LS 33.7/35.8/66.8 before and 87.7/56.8/48.1 after (seed 0).

Any editor, with any number of edit steps: `--config=configs/counterfact_smollm2.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import smollm2


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return smollm2.get_config(arg, "counterfact")
