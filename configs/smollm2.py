"""What the SmolLM2-135M configs share: the settings of 10 x 10 edits, and each editor's initial eta.

This model's keys are shorter than those of the models that the published etas were chosen for. The etas were chosen on
zsRE's training rows alone, from four for each editor, by `python -m benchmarks.editors --choose`: rows 0 to 199 to
train on, 200 to 399 to edit and score, best mean of the three scores.
"""

from __future__ import annotations

import ml_collections

from configs import common

ETA = {  # (editor, edit steps) -> initial eta
    ("emsedit", 2): 3e-4,
    ("rledit", 1): 3e-4,
    ("rledit", 2): 3e-4,
    ("malmen", 1): 3e-4,
    ("malmen", 2): 1e-4,
    ("mend", 1): 3e-4,
    ("ultraedit", 1): 1e-4,
    ("ultraedit", 2): 3e-5,
}

GENERATED, PER_CRITERION = 50, 1  # answers in the model's own words; decoding takes long on a CPU


def get_config(arg: str, dataset: str) -> ml_collections.ConfigDict:
    """10 batches of 10 facts of a data set that is read by path."""
    config = common.get_config(arg)
    config.num_seq = min(config.num_seq, 10)
    config.dataset.name = dataset
    config.dataset.n_edits = 10
    config.editor.lr = common.eta(ETA, config.editor.name, config.editor.iters)
    config.eval.generated = GENERATED
    config.eval.per_criterion = PER_CRITERION
    if "rank" in config.editor:
        config.editor.rank = 256
    return config
