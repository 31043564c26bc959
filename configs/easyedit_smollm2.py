"""EasyEdit's requests on SmolLM2-135M: 10 batches of 10 edits, requests in file order.

A file is a JSON list of requests as EasyEdit's editor makes them, or as KnowEdit has them (`prompt`, `target_new` and,
if wanted, `subject`, `rephrase_prompt`, `locality`, `portability`), or one object of the editor's arguments (`prompts`,
`target_new`, `rephrase_prompts`, `locality_inputs`, ...); see `emsedit_jax/data/easyedit.py`. Trained on others, which
need rephrased prompts, and unrelated ones where an editor has `loc_coef`:

    python launch.py --config=configs/easyedit_smollm2.py \
        --config.dataset.train_path=requests_train.json --config.dataset.valid_path=requests.json

Without training, 20 requests in batches of 10:

    python launch.py --config=configs/easyedit_smollm2.py:editor=ultraedit \
        --config.dataset.valid_path=requests.json --config.num_seq=2

Any editor, with any number of edit steps: `--config=configs/easyedit_smollm2.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import smollm2


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return smollm2.get_config(arg, "easyedit")
