"""A run's edited model as a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

import ml_collections

from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.errors import InputError
from emsedit_jax.lm import export, model
from emsedit_jax.lm.identity import identify
from emsedit_jax.run import edits
from emsedit_jax.run.prepare import say
from emsedit_jax.run.workdir import Workdir


def run_export(config: ml_collections.ConfigDict, path: Path, target: Path) -> None:
    """Writes the model with the edits saved in the workdir `path` to the folder `target`.

    Raises InputError where there are no edits, they belong to another model, or `target` cannot be written.
    """
    folder = Workdir(path)
    edits.check_present(folder.edits)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--to={target} is there already: name a folder that is empty, or not there yet.")
    lm = model.load_lm(
        config.model.name_or_path,
        config.model.dtype,
        accept_terms=config.model.accept_terms,
        progress=lambda words: say("model", words),
    )
    sites = edit_sites.resolve(lm.config, config.model.edit_modules)
    deltas = edits.load(folder.edits, sites, identify(config.model.name_or_path, lm.params))
    say("edits", str(folder.edits))
    export.export(lm.folder, target, lm.config, sites, deltas)
    say(
        "model",
        f"{target}: a Hugging Face folder (transformers: AutoModelForCausalLM.from_pretrained({str(target)!r}))",
    )
