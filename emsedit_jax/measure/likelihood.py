"""How likely each of several answers to a prompt is, all of its tokens together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from emsedit_jax.data.candidates import NONE, CandidatePlan
from emsedit_jax.measure.ask import read_tokens
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.late import one_late


class Likelihoods(NamedTuple):
    """Of each choice (row) and each of its answers (column), in the order given."""

    logprob: Float[np.ndarray, "choices answers"]  # of the whole answer, nats; NaN where a choice has no such answer
    tokens: Int[np.ndarray, "choices answers"]  # of the answer; 0 where a choice has none

    @property
    def per_token(self) -> Float[np.ndarray, "choices answers"]:
        """The answer's mean, nats a token; NaN where a choice has none."""
        return self.logprob / np.maximum(self.tokens, 1)


def likelihoods(model: Edited, plan: CandidatePlan, key: str, begun: Callable[[], None] = lambda: None) -> Likelihoods:
    """How likely each answer is; the store of prefixes knows the plan as `key`. `begun`: a pass begins."""

    def asked() -> Iterator[tuple[np.ndarray, Array]]:
        for number, (batch, sequence_a, words_aw) in enumerate(plan.units()):
            begun()
            prefix_md = model.prefixes.get(("likelihoods", key, number), batch)
            yield sequence_a, read_tokens(*model.whole, prefix_md, batch, words_aw)

    totals_qw = np.zeros(plan.words_qw.shape)
    for sequence_a, logprob_aw in one_late(asked()):
        used_a = sequence_a != NONE
        np.add.at(totals_qw, sequence_a[used_a], np.asarray(logprob_aw, np.float64)[used_a])
    logprob = np.full(plan.sequence_cx.shape, np.nan)
    there = plan.sequence_cx != NONE
    logprob[there] = totals_qw[plan.sequence_cx[there], plan.word_cx[there]]
    return Likelihoods(logprob, plan.tokens_cx)
