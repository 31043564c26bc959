"""How likely each of several answers to a prompt is, all of its tokens together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from emsedit_jax.data.candidates import NONE, CandidatePlan, Pass
from emsedit_jax.measure.ask import read_tokens
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.passes import Passes


class Likelihoods(NamedTuple):
    """Of each choice (row) and each of its answers (column), in the order given."""

    logprob: Float[np.ndarray, "choices answers"]  # of the whole answer, nats; NaN where a choice has no such answer
    tokens: Int[np.ndarray, "choices answers"]  # of the answer; 0 where a choice has none

    @property
    def per_token(self) -> Float[np.ndarray, "choices answers"]:
        """The answer's mean, nats a token; NaN where a choice has none."""
        return self.logprob / np.maximum(self.tokens, 1)


def likelihoods(model: Edited, plan: CandidatePlan, key: str, passes: Passes | None = None) -> Likelihoods:
    """How likely each answer is; the store of prefixes knows the plan as `key`. `passes`: to go on behind."""

    def make(number: int, unit: Pass) -> Array:
        prefix_md = model.prefixes.get(("likelihoods", key, number), unit.batch)
        return read_tokens(*model.whole, prefix_md, unit.batch, unit.words_aw)

    def read(unit: Pass, logprob_aw: Array) -> list[Any]:
        sequence_q, place_a = np.unique(unit.sequence_a, return_inverse=True)
        totals_qw = np.zeros((len(sequence_q), logprob_aw.shape[1]))
        np.add.at(totals_qw, place_a, np.asarray(logprob_aw, np.float64))
        used_q = sequence_q != NONE
        return [sequence_q[used_q].tolist(), totals_qw[used_q].tolist()]

    totals_qw = np.zeros(plan.words_qw.shape)
    for sequences, totals in (passes or Passes()).go(plan.units(), make, read):
        totals_qw[sequences] = totals
    logprob = np.full(plan.sequence_cx.shape, np.nan)
    there = plan.sequence_cx != NONE
    logprob[there] = totals_qw[plan.sequence_cx[there], plan.word_cx[there]]
    return Likelihoods(logprob, plan.tokens_cx)
