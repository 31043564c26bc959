"""MQuAKE on SmolLM2-135M: 10 batches of 10 edits, facts in file order, trained on other rows of the same file.

    python launch.py --config=configs/mquake_smollm2.py \
        --config.dataset.train_path=mquake_cf.json --config.dataset.train_rows=200: \
        --config.dataset.valid_path=mquake_cf.json --config.dataset.rows=:200

A row is one to four facts. Its questions over several hops are asked once all of its facts are edited. It holds nothing
that is unrelated to them: there is no locality score, and no editor is trained for locality (`loc_coef` is 0).

Any editor, with any number of edit steps: `--config=configs/mquake_smollm2.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import smollm2


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = smollm2.get_config(arg, "mquake")
    if "loc_coef" in config.editor:
        config.editor.loc_coef = 0.0
    return config
