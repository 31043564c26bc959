"""How likely tokens are behind others, and whether they are what the model says: for programs with own prompts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax import sharding
from emsedit_jax.data.candidates import NONE, CandidatePlan, plan_candidates
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.capture import prefix
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.late import one_late
from emsedit_jax.types import AnyArray, Batch, Deltas, Sites

_SHORT = 128  # tokens: items up to here go together, longer ones up to each doubling of it


class Judged(NamedTuple):
    """Of each item, in the order given."""

    logprob: Float[np.ndarray, " items"]  # of all labels together, nats
    greedy: Bool[np.ndarray, " items"]  # whether each label is the likeliest token at its place


def judge(
    model: Edited, items: Sequence[TokenItem], max_tokens: int, done: Callable[[int], object] = lambda count: None
) -> Judged:
    """Judges labels behind their prompts, in passes of about `max_tokens` tokens over prompts of like length.

    A pass over a prompt serves all items with it that have a single label. `done` is told how many are judged.
    """
    found = Judged(np.zeros(len(items)), np.zeros(len(items), bool))
    lengths = [max(_SHORT, 1 << (len(item.tokens) - 1).bit_length()) for item in items]
    longest_first = sorted(set(lengths), reverse=True)  # where memory does not do, it is known at once
    for length in longest_first:
        groups = _sharing(items, [m for m, one in enumerate(lengths) if one == length])
        candidates = [[items[m] for m in places] for places in groups]
        plan = plan_candidates(candidates, max_tokens, sharding.size(sharding.DATA))
        logprob_qw, greedy_qw = _judge(model, plan, done)
        for places, sequence_x, word_x in zip(groups, plan.sequence_cx, plan.word_cx, strict=True):
            at = sequence_x[: len(places)], word_x[: len(places)]
            found.logprob[places], found.greedy[places] = logprob_qw[at], greedy_qw[at]
    return found


def _sharing(items: Sequence[TokenItem], places: Sequence[int]) -> list[list[int]]:
    """The places of items that are read behind the same tokens, group by group."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for m in places:
        groups.setdefault(items[m].tokens, []).append(m)
    return list(groups.values())


def _judge(
    model: Edited, plan: CandidatePlan, done: Callable[[int], object]
) -> tuple[Float[np.ndarray, "q w"], Bool[np.ndarray, "q w"]]:
    """(log-probability, whether greedy decoding says it) of each word of each sequence."""

    def asked() -> Iterator[tuple[np.ndarray, tuple[Array, Array]]]:
        for batch, sequence_a, words_aw in plan.units():
            prefix_md = prefix(model.config, model.sites, model.params, batch)
            yield sequence_a, _read(*model.whole, prefix_md, batch, words_aw)

    logprob_qw, greedy_qw = np.zeros(plan.words_qw.shape), np.ones(plan.words_qw.shape, bool)
    items_q = np.bincount(plan.sequence_cx[plan.sequence_cx != NONE], minlength=len(logprob_qw))
    for sequence_a, (logprob_aw, greedy_aw) in one_late(asked()):
        used_a = sequence_a != NONE
        np.add.at(logprob_qw, sequence_a[used_a], np.asarray(logprob_aw, np.float64)[used_a])
        np.logical_and.at(greedy_qw, sequence_a[used_a], np.asarray(greedy_aw)[used_a])
        done(int(items_q[np.unique(sequence_a[used_a])].sum()))
    return logprob_qw, greedy_qw


@functools.partial(jax.jit, static_argnums=(0, 1))
def _read(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
    words_aw: Int[AnyArray, "a w"],
) -> tuple[Float[Array, "a w"], Bool[Array, "a w"]]:
    """(log-probability of each token, whether it is the likeliest) at each answer row; anything where unused."""

    def of_part(params: Params, deltas: Deltas, prefix_md: Array, batch: Batch, words_aw: Array):
        logits_aV = decoder.answer_logits(config, sites, params, deltas, prefix_md, batch)
        logprob_aw = jnp.take_along_axis(jax.nn.log_softmax(logits_aV, axis=-1), words_aw, axis=-1)
        return logprob_aw, words_aw == jnp.argmax(logits_aV, axis=-1)[:, None]

    given = (params, deltas), (prefix_md, batch, words_aw)
    logprob_aw, greedy_aw = sharding.over_data(of_part, *given, sharding.ROWS, batch.parts)
    return sharding.lay(logprob_aw, None, None), sharding.lay(greedy_aw, None, None)
