"""Facts that are given, not named by a config: as records, in batches of like size, ready for editing or training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ml_collections
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.data import batching, checks, nearby, records
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.cues import Cue, EditRecord, Role
from emsedit_jax.data.scoring import plan_scoring
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.lm.model import LM
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.run.prepare import Prepared

T = TypeVar("T")
WATCHED = 6  # facts that are looked at beside each edited one: a model knows some of the answers
Facts = str | Path | Mapping[str, Any] | Sequence[Any]  # a file, one fact, or several


def read(facts: Facts, role: Role) -> list[EditRecord]:
    """The facts of a table or of lines of JSON, of mappings with `prompt`, `answer`, ..., or of (prompt, answer) pairs.

    Records stay as they are.

    Raises InputError with everything that is wrong with them.
    """
    if isinstance(facts, (str, Path)):
        return records.load("facts", facts, role=role, can_skip=False)
    rows: list[Any] = [facts] if isinstance(facts, Mapping) else list(facts)
    if not rows:
        raise InputError("there are no facts: give at least one, such as {'prompt': ..., 'answer': ...}.")
    if len(rows) == 2 and all(isinstance(one, str) for one in rows):
        rows = [tuple(rows)]  # one pair
    known = [one for one in rows if isinstance(one, EditRecord)]
    if len(known) == len(rows):
        return known
    return records.of_objects("facts", [_object(row) for row in rows], role=role)


def _object(row: Any) -> Any:
    """A pair as the object that it stands for; `of_objects` says what is wrong with anything else."""
    if isinstance(row, (tuple, list)) and len(row) == 2 and all(isinstance(one, str) for one in row):
        return {"prompt": row[0], "answer": row[1]}
    return dict(row) if isinstance(row, Mapping) else row


def plain(record: EditRecord) -> dict[str, Any]:
    """A record as a row of anyone's own facts."""
    found: dict[str, Any] = {"prompt": record.edit.prompt, "answer": record.edit.answer}
    if record.subject:
        found["subject"] = record.subject
    if record.equiv:
        found["paraphrases"] = [cue.prompt for cue in record.equiv]
    if record.unrel:
        found["unrelated"] = [{"prompt": cue.prompt, "answer": cue.answer} for cue in record.unrel]
    return found


def check_agree(facts: Sequence[EditRecord]) -> None:
    """Raises InputError where the same prompt is to have two answers: only one of them can hold."""
    found = checks.conflicts(facts)
    if found:
        raise InputError(f"{found[0]} (counting from 0): only one of these answers can hold; take the other rows out.")


class Beside(NamedTuple):
    """A fact with what lies near it, of which no edit in force is about."""

    watched: EditRecord  # with further prompts that are not to change
    held: tuple[Cue, ...]  # prompts that the edit is to leave alone; others than those that are watched, but its own


def with_nearby(facts: Sequence[EditRecord], edited: Sequence[EditRecord], hold: int) -> list[Beside]:
    """The facts with facts much alike: the nearest are dealt out in turn, to be watched and to be held, `hold` of them.

    The prompts of a fact that are not to change are held as well.
    """
    others, found = [*edited, *facts], []
    for one in facts:
        near = nearby.beside(one, 2 * max(hold, WATCHED), others)
        held = (*one.unrel, *near[1::2][:hold]) if hold else ()
        found.append(Beside(dataclasses.replace(one, unrel=(*one.unrel, *near[::2][:WATCHED])), held))
    return found


def cut(facts: Sequence[T], n_edits: int) -> list[list[T]]:
    """As few batches of at most so many facts as there can be, all alike."""
    parts = np.array_split(np.arange(len(facts)), -(-len(facts) // n_edits))
    return [[facts[m] for m in part.tolist()] for part in parts]


def batches(
    config: ml_collections.ConfigDict,
    lm: LM,
    facts: Sequence[EditRecord],
    n_edits: int,
    num_batches: int | None = None,
    held: Sequence[Cue] = (),
) -> EditPlan:
    """Batches in the order given; what is left over is dropped. `held`: prompts that every batch is to leave alone.

    Raises InputError with all that cannot be tokenised, and for tokens that the model does not have.
    """
    plan = batching.plan_tasks(
        facts,
        lm.tokenizer,
        n_edits=n_edits,
        num_batches=num_batches,
        batch_size=config.dataset.batch_size,
        token=config.editor.token,
        max_tokens=lm.config.max_length,
        pass_tokens=config.dataset.batch_tokens,
        can_skip=False,
        parts=sharding.size(sharding.DATA),
        lanes=sharding.row_lanes(),
    )
    if held:
        plan = batching.holding(plan, [held] * len(plan), lm.tokenizer, lm.config.max_length)
    lm.check_tokens(item.ids for item in plan.token_items())
    return batching.roomy(plan)


def prepared(
    config: ml_collections.ConfigDict,
    lm: LM,
    base: Identity,
    editor: Editor,
    plan: EditPlan,
    learning: Learning | None = None,
) -> Prepared:
    """Everything that works with a run's facts, for these."""
    prefixes = PrefixStore(lm.config, editor.sites, lm.params, config.eval.prefix_store_mb)
    scored = plan_scoring(plan, config.eval.batch_tokens, roomy=True)
    return Prepared(config, lm, base, editor, learning, plan if learning else None, None, plan, scored, prefixes)
