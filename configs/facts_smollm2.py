"""Your own facts on SmolLM2-135M: 10 batches of 10 edits, rows in file order.

Facts are lines of JSON with `prompt`, `answer` and, if wanted, `subject`, `paraphrases` and `unrelated`, or a CSV table
with columns `prompt`, `answer`, `subject`, `paraphrase_1`, `unrelated_prompt_1`, `unrelated_answer_1`, ...; see
`emsedit_jax/data/own.py`. Trained on other facts, which need paraphrases:

    python launch.py --config=configs/facts_smollm2.py \
        --config.dataset.train_path=facts_train.jsonl --config.dataset.valid_path=facts.jsonl

Without training, 20 facts of a table in batches of 10:

    python launch.py --config=configs/facts_smollm2.py:editor=ultraedit \
        --config.dataset.valid_path=facts.csv --config.num_seq=2

Any editor, with any number of edit steps: `--config=configs/facts_smollm2.py:editor=rledit,iters=2`.
"""

from __future__ import annotations

import ml_collections

from configs import smollm2


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return smollm2.get_config(arg, "facts")
