"""Training a session's networks, on facts that are given or on those that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections

from emsedit_jax.data import checks, embedded, records
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.lm.model import LM
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.run import keeper, prepare
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.train import train
from emsedit_jax.session import given, ready
from emsedit_jax.session.given import Facts
from emsedit_jax.types import MetaState


def learn(
    config: ml_collections.ConfigDict, lm: LM, base: Identity, editor: Editor, facts: Facts | None
) -> tuple[MetaState, int]:
    """(fresh networks after training, how many facts they saw). Raises InputError for facts that teach nothing."""
    if facts is None:
        taught = records.load("worldfacts", embedded.path("train"), role="train", limit=ready.LESSONS)
    else:
        taught = given.read(facts, "train")
    n_edits = min(config.dataset.n_edits, len(taught))
    count = len(taught) // n_edits
    learning_config = config.copy_and_resolve_references()
    # (one batch would be batch mode, with other networks)
    learning_config.num_seq, learning_config.dataset.n_edits = max(count, 2), n_edits
    learning = prepare.learning_of(learning_config, editor.method, count)
    check(learning_config, taught[: count * n_edits], learning)
    plan = given.batches(learning_config, lm, taught, n_edits, count)
    run = given.prepared(learning_config, lm, base, editor, plan, learning)
    state = trajectory.init(editor, config.seed, learning)
    with CompileClock() as compiling:
        clock = PhaseClock(compiling)
        found, used = train(run, state, clock, lambda row: None, keeper.nothing(clock))
    return MetaState(found.thetas, found.stats, (), ()), used


def check(config: ml_collections.ConfigDict, facts: Sequence[EditRecord], learning: Learning) -> None:
    """Raises InputError where some batch has no prompts of a kind that the editor learns from."""
    size = config.dataset.n_edits
    parts = [facts[start : start + size] for start in range(0, len(facts), size)]
    for kind, words in (("equiv", "a paraphrase"), ("unrel", "an unrelated prompt")):
        lacks = checks.lacking(parts, kind) if kind == "equiv" or learning.loc_coef else None
        if lacks is not None:
            raise InputError(
                f"no fact of the batch of {lacks.source} has {words}, which {config.editor.name} learns from: give "
                "facts with some, or train on those that come with the package by giving none."
            )
