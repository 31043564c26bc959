"""A run's edits in forms that others load: the edited model, the changes alone, or a LoRA adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np

from emsedit_jax import disk
from emsedit_jax.errors import InputError, near
from emsedit_jax.lm import adapter, export
from emsedit_jax.lm.adapter import LowRank
from emsedit_jax.lm.identity import Identity
from emsedit_jax.lm.model import LM
from emsedit_jax.run import anchor, edits, ledger, ledger_files
from emsedit_jax.run.prepare import say
from emsedit_jax.run.restore import restore
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, Sites

CLOSE = 1e-4  # relative difference between the saved edits and what the ledger's factors multiply to


def run_export(config: ml_collections.ConfigDict, path: Path, target: Path, form: str) -> None:
    """Writes the edits saved in the workdir `path` to the folder `target`, in one of `FORMS`.

    Raises InputError where there are no edits, they belong to another model, or `target` cannot be written.
    """
    folder = Workdir(path)
    anchor.check_present(folder)
    disk.check_free(target)
    write(form, folder, target, *restore(config, folder))


def write(form: str, folder: Workdir, target: Path, lm: LM, sites: Sites, deltas: Deltas, base: Identity) -> None:
    """Writes edits to the new folder `target`; the ledger of `folder`, where it has one, knows them as factors.

    Raises InputError for a form that is not known, and where `target` is taken or cannot be written.
    """
    if form not in FORMS:
        raise InputError(f"there is no form {form!r}; known: {', '.join(FORMS)}.{near(form, FORMS)}")
    disk.check_free(target)
    if not any(bool(jnp.any(delta_skv)) for delta_skv in deltas):
        raise InputError("no edits are in force: the model would be written as it was; edit first.")
    FORMS[form](folder, target, lm, sites, deltas, base)


def _whole(folder: Workdir, target: Path, lm: LM, sites: Sites, deltas: Deltas, base: Identity) -> None:
    export.export(lm.folder, target, lm.config, sites, deltas)
    load = f"AutoModelForCausalLM.from_pretrained({str(target)!r})"
    say("model", f"{target}: a Hugging Face folder (transformers: {load})")


def _delta(folder: Workdir, target: Path, lm: LM, sites: Sites, deltas: Deltas, base: Identity) -> None:
    path = adapter.write_deltas(target, lm.config, sites, deltas, base.about())
    say("deltas", f"{path}: {path.stat().st_size / 1e6:,.1f} MB, to be added to the model's weights of the same names")


def _lora(folder: Workdir, target: Path, lm: LM, sites: Sites, deltas: Deltas, base: Identity) -> None:
    dense = edits.named(sites, deltas)
    known = _from_ledger(folder, sites)
    changes = {name: _closest(known.get(name), delta_kv) for name, delta_kv in dense.items()}
    path = adapter.write_lora(target, lm.config, changes, str(lm.folder))
    ranks = [len(one.a_rk) for one in changes.values()]
    most = max(min(delta_kv.shape) for delta_kv in dense.values())
    size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    load = f"peft: PeftModel.from_pretrained(model, {str(path)!r})"
    say("adapter", f"{path}: ranks of {min(ranks)} to {max(ranks)}, at most {most}; {size:,.1f} MB ({load})")
    factors = sum(one.a_rk.size + one.b_rv.size for one in changes.values())
    numbers = sum(delta_kv.size for delta_kv in dense.values())
    if factors >= numbers:
        whole = f"--as=deltas writes those, in {4 * numbers / 1e6:,.1f} MB"
        say("adapter", f"warning: the edits are of too high a rank: their factors are larger than themselves; {whole}")


def _closest(known: LowRank | None, delta_kv: np.ndarray) -> LowRank:
    """The ledger's factors, where they are few and make up this change; else the change taken apart."""
    if known is not None and 0 < len(known.a_rk) < min(delta_kv.shape):
        left = np.linalg.norm(known.a_rk.T @ known.b_rv - delta_kv)
        if left <= CLOSE * np.linalg.norm(delta_kv):
            return known
    return adapter.low_rank(delta_kv)


def _from_ledger(folder: Workdir, sites: Sites) -> dict[str, LowRank]:
    """Site name -> the factors of all batches in force; nothing where there is no such ledger, or they are whole."""
    try:
        found = ledger.read(folder.ledger)
        steps = _few(found, ledger_files.load) if found.sites == sites else []
    except InputError:
        return {}
    if not steps:
        return {}
    joined = {}
    for g, group in enumerate(sites):
        for s, name in enumerate(group.names):
            a_rk, b_rv = (np.concatenate([np.asarray(step[g][side])[s] for step in steps]) for side in (0, 1))
            used_r = np.any(a_rk != 0, axis=1) & np.any(b_rv != 0, axis=1)
            joined[name] = LowRank(a_rk[used_r], b_rv[used_r])
    return joined


def _few(found: ledger.Ledger, load: Callable) -> list:
    """The steps of all batches in force; none where they have more rows than help, or are whole."""
    steps, rows = [], 0
    most = max(min(group.k, group.v) for group in found.sites)
    for record in found.active():
        for step in load(found, record):
            if any(x is None for x, _ in step):
                return []
            rows += max(y.shape[1] for _, y in step)
            steps.append(step)
        if rows > 2 * most:  # (half of them may be padding)
            return []
    return steps


FORMS: dict[str, Callable[[Workdir, Path, LM, Sites, Deltas, Identity], None]] = {
    "model": _whole,
    "deltas": _delta,
    "lora": _lora,
}
