"""What the Gemma-3-270M configs share: the settings of 10 x 10 edits and the sites, in the upper half of 18 layers.

The initial etas of EMSEdit and UltraEdit were chosen on zsRE's training rows, as those of SmolLM2-135M were, by
`python -m benchmarks.editors --model=gemma3 --accept-terms --editors=UltraEdit,EMSEdit --choose`: both are a tenth of
that model's. The other editors' were not looked for; they are a tenth likewise.
"""

from __future__ import annotations

import ml_collections

from configs import common, smollm2

ETA = {  # (editor, edit steps) -> initial eta
    ("emsedit", 2): 3e-5,
    ("rledit", 1): 3e-5,
    ("rledit", 2): 3e-5,
    ("malmen", 1): 3e-5,
    ("malmen", 2): 1e-5,
    ("mend", 1): 3e-5,
    ("ultraedit", 1): 1e-5,
    ("ultraedit", 2): 3e-6,
}
SITES = ("model.layers.{8..16}.mlp.gate_proj", "model.layers.{8..16}.mlp.up_proj")


def get_config(arg: str, dataset: str) -> ml_collections.ConfigDict:
    """10 batches of 10 facts of a data set that is read by path."""
    config = common.get_config(arg)
    config.num_seq = min(config.num_seq, 10)
    config.dataset.name = dataset
    config.dataset.n_edits = 10
    config.model.name_or_path = "gemma3-270m"
    config.model.edit_modules = SITES
    config.editor.lr = common.eta(ETA, config.editor.name, config.editor.iters)
    config.eval.generated = smollm2.GENERATED
    config.eval.per_criterion = smollm2.PER_CRITERION
    if "rank" in config.editor:
        config.editor.rank = 256
    return config
