"""From a checked config to everything a run works with: model, sites, editor, data; one printed line for each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.data import batching, embedded, records
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.scoring import ScorePlan, plan_scoring
from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.errors import InputError
from emsedit_jax.lm import model, params
from emsedit_jax.lm.identity import Identity, identify
from emsedit_jax.lm.model import LM
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.meta import methods
from emsedit_jax.meta.gradient import OptimiserSpec
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.run import networks

ROWS_FIELD = {"train": "train_rows", "eval": "rows"}  # of config.dataset, by role


class Prepared(NamedTuple):
    """What a run works with; nothing in it changes."""

    config: ml_collections.ConfigDict
    lm: LM
    base: Identity  # of that model: files of edits and networks belong to it
    editor: Editor
    learning: Learning | None  # None where nothing is to be trained
    train_plan: EditPlan | None  # likewise; trajectory after trajectory
    holdout: ScorePlan | None  # training facts kept apart, if any
    valid_plan: EditPlan
    score_plan: ScorePlan
    prefixes: PrefixStore


def prepare(config: ml_collections.ConfigDict, *, training: bool = True) -> Prepared:
    """Reads what is cheap to check first, so that a mistake in the data is told before the model is loaded.

    Raises InputError for whatever is wrong with the data, the model's folder or the edit sites.
    """
    method = methods.method(config.editor.name)
    learns = training and method.learned and not config.editor.load and config.editor.n_epochs > 0
    held = config.train.holdout if learns else 0
    if training and config.editor.get("load"):
        networks.file_of(config.editor.load)
    train_records = _records(config, "train") if learns else []
    a_trajectory = batches_of_training(config, method, len(train_records)) if learns else 0
    if learns:
        _check_rows(config, "train", len(train_records), a_trajectory, config.train.n_trajectories, held)
    learning = learning_of(config, method, a_trajectory) if learns else None
    valid_records = _records(config, "eval")
    _check_rows(config, "eval", len(valid_records), config.num_seq)

    started = time.monotonic()
    lm = model.load_lm(
        config.model.name_or_path,
        config.model.dtype,
        accept_terms=config.model.accept_terms,
        progress=lambda words: say("model", words),
    )
    lm_line = f"{config.model.name_or_path}: {params.count(lm.config) / 1e6:,.0f} M parameters, {lm.config.dtype}"
    say("model", f"{lm_line}, loaded in {time.monotonic() - started:.1f} s")
    sites = edit_sites.resolve(lm.config, config.model.edit_modules)

    valid_plan = _plan(config, lm, valid_records, config.num_seq, draw=1)
    train_plan = holdout = None
    if learns:
        n_train = a_trajectory * config.train.n_trajectories
        both = _plan(config, lm, train_records, n_train + held, draw=0)
        both, valid_plan = batching.share_shapes(both, valid_plan)
        train_plan = both.part(0, n_train)
        holdout = plan_scoring(both.part(n_train, n_train + held), config.eval.batch_tokens) if held else None
    say("data", _data_line(config, len(train_records), valid_plan, train_plan, held))
    say("sites", _sites_line(config, sites))

    sizes: dict[str, Any] = {"rank": config.editor.rank, "n_blocks": config.editor.n_blocks} if method.learned else {}
    iters = config.editor.iters
    specs = methods.net_specs(method, iters=iters, lr=config.editor.lr, num_seq=config.num_seq, **sizes)
    editor = Editor(lm.config, sites, method, specs, iters, config.editor.rows_at_once)
    prefixes = PrefixStore(lm.config, sites, lm.params, config.eval.prefix_store_mb)
    score_plan = plan_scoring(valid_plan, config.eval.batch_tokens)
    base = identify(config.model.name_or_path, lm.params)
    return Prepared(config, lm, base, editor, learning, train_plan, holdout, valid_plan, score_plan, prefixes)


def batches_of_training(config: ml_collections.ConfigDict, method: methods.Method, rows: int) -> int:
    """Batches of one trajectory: num_seq, or where training is step-wise max_steps, as far as the rows go."""
    if not method.is_stepwise(config.num_seq):
        return config.num_seq
    full = max((rows // config.dataset.n_edits - config.train.holdout) // config.train.n_trajectories, 1)
    return full if config.editor.max_steps == -1 else min(config.editor.max_steps, full)


def learning_of(config: ml_collections.ConfigDict, method: methods.Method, a_trajectory: int) -> Learning:
    """How the networks learn, from the config's words."""
    editor, train = config.editor, config.train
    stepwise = method.is_stepwise(config.num_seq)
    update_every = train.update_every if train.update_every != "auto" else "step" if stepwise else "trajectory"
    passes = editor.n_epochs * train.n_trajectories
    updates = {"trajectory": 1, "batch": a_trajectory, "step": a_trajectory * editor.iters}[update_every] * passes
    repeats = editor.iters if train.repeat_shared and stepwise else 1
    if train.warmup >= updates * repeats:
        raise InputError(
            f"--config.train.warmup={train.warmup}: must be less than the optimiser's steps in all, "
            f"{updates * repeats}, or the rate never reaches meta_lr; lower it, or train for longer."
        )
    running = train.clip == "running"
    bound = float(editor.max_grad_norm)
    optimiser = OptimiserSpec(
        float(editor.meta_lr),
        train.schedule,
        train.warmup,
        updates * repeats,
        float(train.weight_decay),
        float("inf") if running else bound,
    )
    return Learning(
        optimiser,
        bound,
        keep_edits=not stepwise,
        update_every=update_every,
        running_clip=running,
        drift_coef=method.drift_coef(float(editor.get("reg_coef", 0.0)), config.num_seq, train.reading),
        loc_coef=float(editor.get("loc_coef", 0.0)) if method.locality else 0.0,
        time_decay=float(editor.get("time_decay", 1.0)),
        back_depth=editor.get("back_depth", 1) if method.replay else 1,
        repeats=repeats,
    )


def say(what: str, words: str) -> None:
    """One line about the run, before the work begins."""
    print(f"{what:<8} {words}", flush=True)


def _records(config: ml_collections.ConfigDict, role: records.Role) -> list[records.EditRecord]:
    dataset, field = config.dataset, ROWS_FIELD[role]
    rows = records.parse_rows(dataset[field])
    try:
        return records.load(
            dataset.name, _path(config, role), role=role, limit=dataset.limit or None, rows=rows, seed=config.seed
        )
    except InputError as error:
        asked = f" Rows were chosen by --config.dataset.{field}={dataset[field]}." if rows else ""
        raise InputError(f"{error}{asked}") from error


def _path(config: ml_collections.ConfigDict, role: records.Role) -> str | Path:
    path = config.dataset.train_path if role == "train" else config.dataset.valid_path
    return embedded.path(role) if not path and config.dataset.name == "worldfacts" else path


def _check_rows(
    config: ml_collections.ConfigDict,
    role: records.Role,
    rows: int,
    batches: int,
    n_trajectories: int = 1,
    holdout: int = 0,
) -> None:
    """Raises InputError where the file holds fewer rows than are asked for, with every field that asks for them."""
    dataset = config.dataset
    wanted = (batches * n_trajectories + holdout) * dataset.n_edits
    if wanted <= rows:
        return
    sequence = batches == config.num_seq  # else step-wise training, which takes what there is, but one batch at least
    asked, flags = (f"num_seq={batches}", ["num_seq"]) if sequence else (f"{batches} training batch", [])
    if n_trajectories > 1:
        asked, flags = f"{asked} x n_trajectories={n_trajectories}", [*flags, "train.n_trajectories"]
    if holdout:
        asked, flags = f"({asked} + holdout={holdout})", [*flags, "train.holdout"]
    chosen = [name for name in ("limit", ROWS_FIELD[role]) if dataset[name]]
    limited = f" ({', '.join(f'--config.dataset.{name}={dataset[name]}' for name in chosen)})" if chosen else ""
    lower = " or ".join(f"--config.{name}" for name in (*flags, "dataset.n_edits"))
    raise InputError(
        f"{_path(config, role)}: {asked} x n_edits={dataset.n_edits} = {wanted} rows are needed, but there are "
        f"{rows}{limited}; lower {lower}, or give more rows."
    )


def _plan(
    config: ml_collections.ConfigDict, lm: LM, found: list[records.EditRecord], batches: int, draw: int
) -> EditPlan:
    dataset = config.dataset
    return batching.plan_tasks(
        found,
        lm.tokenizer,
        n_edits=dataset.n_edits,
        num_batches=batches,
        batch_size=dataset.batch_size,
        token=config.editor.token,
        seed=2 * config.seed + draw if dataset.shuffle else None,  # training and editing draw apart
        max_tokens=lm.config.max_length,
        pass_tokens=dataset.batch_tokens,
    )


def _data_line(
    config: ml_collections.ConfigDict, train_rows: int, valid_plan: EditPlan, train_plan: EditPlan | None, held: int
) -> str:
    n_edits = config.dataset.n_edits
    batches = "batches" if len(valid_plan) > 1 else "batch"
    parts = [f"{len(valid_plan) * n_edits} facts to edit in {len(valid_plan)} {batches} of {n_edits}"]
    if train_plan is not None:
        apart = [f"{held * n_edits} to try it out on"] if held else []
        parts = [f"{len(train_plan) * n_edits} of {train_rows} to train on", *apart, *parts]
    return f"{config.dataset.name}: {', '.join(parts)}"


def _sites_line(config: ml_collections.ConfigDict, sites) -> str:
    shapes = ", ".join(f"{len(group.layers)} of {group.k} x {group.v}" for group in sites)
    return f"{', '.join(config.model.edit_modules)} ({shapes})"
