"""From a checked config to everything a run works with: model, sites, editor, data; one printed line for each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.data import batching, checks, nearby
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.records import Role
from emsedit_jax.data.scoring import ScorePlan, plan_scoring
from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.errors import InputError
from emsedit_jax.lm import model, params
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.identity import Identity, identify
from emsedit_jax.lm.model import LM
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.meta import methods
from emsedit_jax.meta.gradient import OptimiserSpec
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.run import facts, networks, uneven
from emsedit_jax.run.facts import Found
from emsedit_jax.types import Deltas


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
    skipped: Mapping[str, Sequence[str]] = MappingProxyType({})  # role -> bad rows left out, a text each
    conflicts: Sequence[str] = ()  # prompts that are to be given several answers

    def under(self, deltas: Deltas) -> Edited:
        """The model under these edits, to be asked."""
        return Edited(self.lm.config, self.editor.sites, self.lm.params, deltas, self.prefixes)


def prepare(config: ml_collections.ConfigDict, *, training: bool = True, lm: LM | None = None) -> Prepared:
    """Reads what is cheap to check first, so that a mistake in the data is told before the model is loaded.

    Args:
      config: checked.
      training: whether networks are to be trained, if the method has any.
      lm: the model, where it is loaded already; None: the one that the config names.

    Raises InputError for whatever is wrong with the data, the model's folder or the edit sites.
    """
    method = methods.method(config.editor.name)
    learns = training and method.learned and not config.editor.load and config.editor.n_epochs > 0
    held = config.train.holdout if learns else 0
    if training and config.editor.get("load"):
        networks.file_of(config.editor.load)
    roles: tuple[Role, ...] = ("train", "eval") if learns else ("eval",)
    found = facts.read(config, roles)
    a_trajectory, learning = _checked(config, method, found)

    lm = lm or _load(config.model)
    lm = dataclasses.replace(lm, config=dataclasses.replace(lm.config, remat=config.model.remat or lm.config.remat))
    editor = editor_of(config, lm.config)

    if config.dataset.on_bad_row == "skip":
        found = facts.usable(found, lm)
        a_trajectory, learning = _checked(config, method, found)
    n_train = a_trajectory * config.train.n_trajectories
    plans = facts.plans(config, found, lm, {"train": n_train + held, "eval": config.num_seq})
    valid_plan, train_plan, holdout = _holding(config, lm, plans["eval"]), None, None
    for plan in (*plans.values(), valid_plan):
        lm.check_tokens(item.ids for item in plan.token_items())
    if learns:
        both, valid_plan = batching.share_shapes(plans["train"], valid_plan)
        train_plan = both.part(0, n_train)
        holdout = plan_scoring(both.part(n_train, n_train + held), config.eval.batch_tokens) if held else None
    conflicts = checks.conflicts(facts.drawn(valid_plan))
    say("data", facts.line(config, found, valid_plan, train_plan))
    if conflicts:
        say("warning", facts.contradictions(conflicts))
    say("sites", _sites_line(config, editor.sites))
    say_uneven(uneven.of_plan(editor, valid_plan))

    prefixes = PrefixStore(lm.config, editor.sites, lm.params, config.eval.prefix_store_mb)
    score_plan = plan_scoring(valid_plan, config.eval.batch_tokens)
    base = identify(config.model.name_or_path, lm.params)
    skipped: dict[str, Sequence[str]] = {role: one.skipped for role, one in found.items()}
    return Prepared(
        config, lm, base, editor, learning, train_plan, holdout, valid_plan, score_plan, prefixes, skipped, conflicts
    )


def _holding(config: ml_collections.ConfigDict, lm: LM, plan: EditPlan) -> EditPlan:
    """The plan with facts near those of each batch that its edits are to leave alone, none of which is scored."""
    hold, records = config.dataset.hold, facts.drawn(plan)
    if not hold:
        return plan
    apart = {cue.prompt for record in records for cue in record.unrel}
    cues = [[cue for one in batch for cue in nearby.beside(one, hold, records, apart)] for batch in plan.drawn]
    return batching.share_shapes(batching.holding(plan, cues, lm.tokenizer, lm.config.max_length))[0]


def editor_of(config: ml_collections.ConfigDict, lm: LMConfig) -> Editor:
    """The config's editor on such a model. Raises InputError for sites that it does not have."""
    method, iters = methods.method(config.editor.name), config.editor.iters
    sizes: dict[str, Any] = {"rank": config.editor.rank, "n_blocks": config.editor.n_blocks} if method.learned else {}
    specs = methods.net_specs(method, iters=iters, lr=config.editor.lr, num_seq=config.num_seq, **sizes)
    if config.dataset.hold and method.rule.ridge is None:
        hold = f"--config.dataset.hold={config.dataset.hold}"
        raise InputError(f"{hold}: {method.name} cannot hold facts (docs/METHODS.md, section 10); set it to 0.")
    sites = edit_sites.resolve(lm, config.model.edit_modules)
    return Editor(lm, sites, method, specs, iters, config.editor.rows_at_once)


def _load(config: ml_collections.ConfigDict) -> LM:
    started = time.monotonic()
    lm = model.load_lm(
        config.name_or_path,
        config.dtype,
        accept_terms=config.accept_terms,
        progress=lambda words: say("model", words),
    )
    about = f"{config.name_or_path}: {params.count(lm.config) / 1e6:,.0f} M parameters, {lm.config.dtype}"
    say("model", f"{about}, loaded in {time.monotonic() - started:.1f} s")
    say_uneven(uneven.of_model(lm.config))
    return lm


def _checked(config: ml_collections.ConfigDict, method: methods.Method, found: Found) -> tuple[int, Learning | None]:
    """(batches of a training trajectory, how to learn), once there are facts enough, with the prompts that it takes."""
    a_trajectory, learning, n_trajectories = 0, None, config.train.n_trajectories
    if "train" in found:
        known = found["train"]
        a_trajectory = batches_of_training(config, method, len(known.records))
        facts.check_enough(config, "train", known, a_trajectory, n_trajectories, config.train.holdout)
        learning = learning_of(config, method, a_trajectory)
        facts.check_lessons(config, known, a_trajectory * n_trajectories, learning)
    facts.check_enough(config, "eval", found["eval"], config.num_seq)
    return a_trajectory, learning


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


def say_uneven(found: Sequence[str]) -> None:
    """What the mesh does not divide, a line each."""
    for words in found:
        say("mesh", words)


def say(what: str, words: str) -> None:
    """One line about the run, before the work begins."""
    print(f"{what:<8} {words}", flush=True)


def _sites_line(config: ml_collections.ConfigDict, sites) -> str:
    shapes = ", ".join(f"{len(group.layers)} of {group.k} x {group.v}" for group in sites)
    return f"{', '.join(config.model.edit_modules)} ({shapes})"
