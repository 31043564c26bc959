"""What a session does with one batch of facts: writing them, scoring them, and telling what an edit did to them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.step import StepAux
from emsedit_jax.measure import speech
from emsedit_jax.measure.score import Shares, score_edits
from emsedit_jax.meta import trajectory
from emsedit_jax.run import ledger_files, watch
from emsedit_jax.run.editing import prompts_of
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.session.told import Checked, FactReport
from emsedit_jax.types import Deltas, MetaState


def edit_in(run: Prepared, deltas: Deltas, state: MetaState, number: int) -> tuple[Deltas, MetaState, Any]:
    """One batch more, in as few steps as it takes; the factors of these are brought to the host.

    Steps end once every token of the new answers has more than half of the probability, so that what is written is no
    stronger than it has to be. Raises: Diverged.
    """
    editor, before, written = run.editor, deltas, []
    prompts = prompts_of(run, "edit", run.valid_plan, 0, "edit")
    for i in range(editor.iters):
        found, after, aux = trajectory.step(editor, run.lm.params, deltas, state, prompts, i, factors=True)
        row = jax.device_get(watch.step_row([watch.of_step(editor, aux)]))
        if written and _is_taken(prompts, aux):
            break
        watch.check(editor, {"phase": "edit", "batch": number}, row, before, state)
        deltas, state = found, after
        written.append(aux.factors)
    return deltas, state, ledger_files.gathered(written)


def _is_taken(prompts: Prompts, aux: StepAux) -> bool:
    """Whether all answers were likely before this step; never known of rows that were streamed."""
    weights_a = np.concatenate([batch.weights_a for batch in prompts.batches])
    ce_a = np.concatenate([trace.ce_a for trace in aux.traces])
    return ce_a.shape == weights_a.shape and bool(np.all(ce_a[weights_a > 0] < np.log(2)))


def shares(run: Prepared, deltas: Deltas) -> Shares:
    """ES, GS and LS of every prompt of the only batch."""
    return next(score_edits(run.under(deltas), run.score_plan, [0]))


def reports(run: Prepared, before: Deltas, after: Deltas, max_new_tokens: int) -> list[FactReport]:
    """What an edit did to the facts of a batch."""
    facts, plan = run.valid_plan.records(0), run.valid_plan
    prompts = [one.edit.prompt for one in facts]
    said = [speech.lines(run.under(one), run.lm.tokenizer, prompts, max_new_tokens) for one in (before, after)]
    pairs = [shares(run, one) for one in (before, after)]

    def checked(kind: str, name: str) -> list[list[Checked]]:
        found: list[list[Checked]] = [[] for _ in facts]
        cues = [cue for one in facts for cue in one.cues(kind)]
        for owner, cue, *pair in zip(plan.owners(0, kind), cues, *(one[name] for one in pairs), strict=True):
            found[owner].append(Checked(cue.prompt, cue.answer, *map(float, pair)))
        return found

    kinds = (checked(kind, name) for kind, name in (("edit", "ES"), ("equiv", "GS"), ("unrel", "LS")))
    return [
        FactReport(asked[0], was, now, tuple(equiv), tuple(unrel))
        for asked, equiv, unrel, was, now in zip(*kinds, *said, strict=True)
    ]
