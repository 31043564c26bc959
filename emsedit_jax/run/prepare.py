"""From a checked config to everything a run works with: model, sites, editor, data; one printed line for each."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.data import batching, embedded, records
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.scoring import ScorePlan, plan_scoring
from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.errors import InputError
from emsedit_jax.lm import model, params
from emsedit_jax.lm.model import LM
from emsedit_jax.meta import methods
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.run.prefixes import PrefixStore


class Prepared(NamedTuple):
    """What a run works with; nothing in it changes."""

    config: ml_collections.ConfigDict
    lm: LM
    editor: Editor
    learning: Learning | None  # None where the editor needs no training
    train_plan: EditPlan | None  # likewise
    valid_plan: EditPlan
    score_plan: ScorePlan
    prefixes: PrefixStore


def prepare(config: ml_collections.ConfigDict, *, training: bool = True) -> Prepared:
    """Reads what is cheap to check first, so that a mistake in the data is told before the model is loaded.

    Raises InputError for whatever is wrong with the data, the model's folder or the edit sites.
    """
    method = methods.method(config.editor.name)
    learns = training and method.learned
    train_records = _records(config, "train") if learns else None
    valid_records = _records(config, "eval")
    started = time.monotonic()
    lm = model.load_lm(config.model.name_or_path, config.model.dtype, progress=lambda words: say("model", words))
    lm_line = f"{config.model.name_or_path}: {params.count(lm.config) / 1e6:,.0f} M parameters, {lm.config.dtype}"
    say("model", f"{lm_line}, loaded in {time.monotonic() - started:.1f} s")
    sites = edit_sites.resolve(lm.config, config.model.edit_modules)

    valid_plan = _plan(config, lm, valid_records, draw=1)
    train_plan = None if train_records is None else _plan(config, lm, train_records, draw=0)
    if train_plan is not None:
        train_plan, valid_plan = batching.share_shapes(train_plan, valid_plan)
    say("data", _data_line(config, train_records, valid_records))
    say("sites", _sites_line(config, sites))

    editor = Editor(lm.config, sites, method, _specs(config, method))
    learning = None
    if learns:
        learning = Learning(config.editor.meta_lr, config.editor.max_grad_norm, config.editor.reg_coef)
    prefixes = PrefixStore(lm.config, sites, lm.params, config.eval.prefix_store_mb)
    score_plan = plan_scoring(valid_plan, config.eval.batch_tokens)
    return Prepared(config, lm, editor, learning, train_plan, valid_plan, score_plan, prefixes)


def say(what: str, words: str) -> None:
    """One line about the run, before the work begins."""
    print(f"{what:<8} {words}", flush=True)


def _specs(config: ml_collections.ConfigDict, method: methods.Method) -> tuple:
    editor = config.editor
    sizes: dict[str, Any] = {"rank": editor.rank, "n_blocks": editor.n_blocks} if method.learned else {}
    return methods.net_specs(method, iters=editor.iters, lr=editor.lr, **sizes)


def _records(config: ml_collections.ConfigDict, role: records.Role) -> list[records.EditRecord]:
    dataset = config.dataset
    path = dataset.train_path if role == "train" else dataset.valid_path
    if not path and dataset.name == "worldfacts":
        path = embedded.path(role)
    found = records.load(dataset.name, path, role=role, limit=dataset.limit or None)
    wanted = config.num_seq * dataset.n_edits
    if wanted > len(found):
        limited = f" (--config.dataset.limit={dataset.limit})" if dataset.limit else ""
        raise InputError(
            f"{path}: num_seq={config.num_seq} x n_edits={dataset.n_edits} = {wanted} rows are needed, but there are "
            f"{len(found)}{limited}; lower --config.num_seq or --config.dataset.n_edits, or give more rows."
        )
    return found


def _plan(config: ml_collections.ConfigDict, lm: LM, found: list[records.EditRecord], draw: int) -> EditPlan:
    dataset = config.dataset
    return batching.plan_tasks(
        found,
        lm.tokenizer,
        n_edits=dataset.n_edits,
        num_batches=config.num_seq,
        batch_size=dataset.batch_size,
        token=config.editor.token,
        seed=2 * config.seed + draw if dataset.shuffle else None,  # training and editing draw apart
        max_tokens=lm.config.max_length,
    )


def _data_line(config: ml_collections.ConfigDict, train: list | None, valid: list) -> str:
    used = config.num_seq * config.dataset.n_edits
    parts = [f"{used} of {len(valid)} to edit"]
    if train is not None:
        parts.insert(0, f"{used} of {len(train)} to train on")
    words = f"{config.dataset.name}: {', '.join(parts)}"
    return f"{words}; {config.num_seq} batches of {config.dataset.n_edits}"


def _sites_line(config: ml_collections.ConfigDict, sites) -> str:
    shapes = ", ".join(f"{len(group.layers)} of {group.k} x {group.v}" for group in sites)
    return f"{', '.join(config.model.edit_modules)} ({shapes})"
