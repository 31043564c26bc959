"""What a session does with one batch of facts: writing them, scoring them, and telling what an edit did to them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.step import StepAux
from emsedit_jax.measure import speech
from emsedit_jax.measure.score import Shares, score_edits
from emsedit_jax.meta import trajectory
from emsedit_jax.run import history, ledger_files, watch
from emsedit_jax.run.editing import prompts_of
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.watch import Diverged
from emsedit_jax.session.told import Checked, FactReport
from emsedit_jax.types import Deltas, MetaState

LIKELY = float(np.log(2))  # cross entropy of a token with half of the probability
STEPS = 8  # at most, where eta is found
GROWTH, BACK, FAR = 2.0, 4.0, 16.0  # a stride's way to the next longer one, to a shorter one, to that of the next trial
LEAST, MOST = 16.0**-2, 16.0**4  # strides
RATES = "editor.lr (behind a --config, or in `settings`; docs/FACTS.md)"  # what is to be lowered where an edit diverges
SURE = 0.01  # share of the loss that a step must gain to be sure of it


class Written(NamedTuple):
    """A batch written into the edits."""

    deltas: Deltas
    state: MetaState
    factors: ledger_files.Steps  # of its steps, on the host
    taken: bool  # every token of the new answers has more than half of the probability
    began: float  # mean cross entropy of these tokens before the first step
    loss: float  # at the last look
    stride: float  # how many times eta every step went


def edit_in(run: Prepared, deltas: Deltas, state: MetaState, number: int) -> Written:
    """One batch more, in as few of the editor's steps as it takes.

    Steps end once the new answers are likely, so that what is written is no stronger than it has to be.

    Raises: Diverged.
    """
    return _in_steps(run, deltas, state, number, 1.0, run.editor.iters)


def edit_until_taken(run: Prepared, deltas: Deltas, state: MetaState, number: int, stride: float) -> Written:
    """One batch more, with an eta that is found: the config's is a guess, and a shift is proportional to it.

    The batch is written anew with `GROWTH` times the stride until the answers are likely after all steps, or nothing is
    gained by it; or with less, where the answers become less likely than they were. Rows that are streamed tell nothing
    of single answers: they are edited with the stride that there is.

    Args:
      stride: how many times eta to begin with; 0: it is told by how far a first step goes.

    Raises: Diverged.
    """
    best = _gaining(run, deltas, state, number, stride or _first(run, deltas, state, number))
    while not (best.taken or np.isnan(best.loss)) and GROWTH * best.stride <= MOST:
        try:
            now = _in_full(run, deltas, state, number, GROWTH * best.stride)
        except Diverged:
            break
        if not (now.taken or now.loss < best.loss):
            break
        best = now
    return best


def _gaining(run: Prepared, deltas: Deltas, state: MetaState, number: int, stride: float) -> Written:
    """The batch with that stride, or with a shorter one where its answers become less likely. Raises: Diverged."""
    while True:
        fault = Diverged(f"edit batch {number}: however short a step, its answers do not gain by it.", deltas, state)
        try:
            now = _in_full(run, deltas, state, number, stride)
            if now.taken or not now.loss >= now.began:
                return now
        except Diverged as found:
            fault = found
        stride /= BACK
        if stride < LEAST:
            raise fault


def _in_full(run: Prepared, deltas: Deltas, state: MetaState, number: int, stride: float) -> Written:
    return _in_steps(run, deltas, state, number, stride, max(run.editor.iters, STEPS), judged=True)


def _first(run: Prepared, deltas: Deltas, state: MetaState, number: int) -> float:
    """A stride with which a step goes about a quarter of the way; a power of two."""
    stride = 1.0
    while stride <= MOST:
        try:
            tried = _in_steps(run, deltas, state, number, stride, 1, judged=True)
        except Diverged:
            return stride / FAR
        gained, wanted = tried.began - tried.loss, (tried.began - LIKELY) / 4
        if np.isnan(gained) or wanted <= 0:
            return stride
        if abs(gained) > SURE * tried.began:
            return float(np.clip(2.0 ** np.floor(np.log2(stride * wanted / abs(gained))), LEAST, MOST))
        stride *= FAR
    return 1.0


def _in_steps(
    run: Prepared, deltas: Deltas, state: MetaState, number: int, stride: float, steps: int, judged: bool = False
) -> Written:
    """The batch in so many steps of one stride; `judged`: the last is looked at by one more, which is dropped."""
    editor, before, written, losses = run.editor, deltas, [], []
    prompts = prompts_of(run, "edit", run.valid_plan, 0, "edit")
    taken = False
    for i in range(steps + judged):
        slot = min(i, editor.iters - 1)
        found, after, aux = trajectory.step(editor, run.lm.params, deltas, state, prompts, slot, factors=True)
        row = jax.device_get(watch.step_row([watch.of_step(editor, aux)]))
        likely, loss = _looked_at(prompts, aux)
        losses.append(loss)
        taken = bool(written) and likely
        if taken:
            break
        watch.check(editor, {"phase": "edit", "batch": number}, row, before, state, RATES)
        if i == steps:
            break
        assert aux.factors is not None
        written += ledger_files.gathered([aux.factors])
        if stride != 1:
            written[-1] = [(x_snk, np.float32(stride) * y) for x_snk, y in written[-1]]
            found = history.add(editor.sites, jax.tree.map(jnp.copy, deltas), written[-1:])
        deltas, state = found, after
    return Written(deltas, state, written, taken, losses[0], losses[-1], stride)


def _looked_at(prompts: Prompts, aux: StepAux) -> tuple[bool, float]:
    """Whether all answers were likely before this step, and their loss then; nan of rows that were streamed."""
    weights_a = np.concatenate([batch.weights_a for batch in prompts.batches])
    ce_a = np.concatenate([trace.ce_a for trace in aux.traces])
    if ce_a.shape != weights_a.shape:
        return False, float("nan")
    ce_a = ce_a[weights_a > 0]
    return bool(np.all(ce_a < LIKELY)), float(ce_a.mean())


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
