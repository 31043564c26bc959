"""What a model makes of questions: how likely the answers are, and how far edits move its predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax import sharding
from emsedit_jax.data.questions import QuestionPlan
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.passes import Passes
from emsedit_jax.types import AnyArray, Batch, Deltas, Sites


class Answers(NamedTuple):
    """Of each question, in the order given."""

    logprob: Float[np.ndarray, " items"]  # of the whole answer, nats
    tokens: Int[np.ndarray, " items"]  # of the answer


class Drift(NamedTuple):
    """Of each question: how far the edited model's predictions of the answer's tokens are from the unedited one's."""

    same: Float[np.ndarray, " items"]  # share of tokens with the same likeliest one
    kl: Float[np.ndarray, " items"]  # KL(unedited || edited), nats, mean over the answer's tokens


def ask(model: Edited, plan: QuestionPlan, key: str, passes: Passes | None = None) -> Answers:
    """How likely each answer is; the store of prefixes knows the plan as `key`. `passes`: to go on behind."""

    def pass_over(prefix_md: Array, batch: Batch) -> Array:
        return read_tokens(*model.whole, prefix_md, batch, np.maximum(batch.labels_a, 0)[:, None])

    def read(batch: Batch, logprob_aw: Array) -> Iterator[np.ndarray]:
        yield _sums(batch, np.asarray(logprob_aw)[:, 0])
        yield _counts(batch)

    found = Answers(np.zeros(len(plan.items)), np.zeros(len(plan.items), np.int64))
    _fill(found, model, plan, key, passes or Passes(), pass_over, read)
    return found


def _fill(
    found: Answers | Drift,
    model: Edited,
    plan: QuestionPlan,
    key: str,
    passes: Passes,
    pass_over: Callable[[Array, Batch], Any],
    read: Callable[[Batch, Any], Iterator[np.ndarray]],
) -> None:
    """Puts what `read` makes of each pass, which is one array for each of `found`, where its questions have places."""

    def make(number: int, unit: tuple[Batch, Sequence[int]]) -> Any:
        batch, _ = unit
        return pass_over(model.prefixes.get(("ask", key, number), batch), batch)

    all_passes = passes.go(plan.units(), make, lambda unit, made: [one.tolist() for one in read(unit[0], made)])
    for places, values in zip(plan.cuts, all_passes, strict=True):
        for whole, part in zip(found, values, strict=True):
            whole[list(places)] = part


def drift(model: Edited, plan: QuestionPlan, key: str, passes: Passes | None = None) -> Drift:
    """How far the edits move what the model says to each question; the store of prefixes knows the plan as `key`.

    `passes`: to go on behind.
    """
    before = no_edit(model.sites)

    def pass_over(prefix_md: Array, batch: Batch) -> tuple[Array, Array]:
        return _drift(model.config, model.sites, model.params, before, model.deltas, prefix_md, batch)

    def read(batch: Batch, made: tuple[Array, Array]) -> Iterator[np.ndarray]:
        for values_a in made:
            yield _sums(batch, values_a) / _counts(batch)

    found = Drift(np.zeros(len(plan.items)), np.zeros(len(plan.items)))
    _fill(found, model, plan, key, passes or Passes(), pass_over, read)
    return found


def _counts(batch: Batch) -> Float[np.ndarray, " prompts"]:
    """Answer tokens of each prompt."""
    return _sums(batch, np.ones(len(np.asarray(batch.item_a))))


def _sums(batch: Batch, values_a: Array | np.ndarray) -> Float[np.ndarray, " prompts"]:
    """Sum over the answer tokens of each prompt, in float64."""
    item_a = np.asarray(batch.item_a)
    used_a = item_a >= 0
    return np.bincount(item_a[used_a], np.asarray(values_a, np.float64)[used_a])


def _logprobs(
    config: LMConfig, sites: Sites, params: Params, deltas: Deltas, prefix_md: Array, batch: Batch
) -> Float[Array, "a V"]:
    return jax.nn.log_softmax(decoder.answer_logits(config, sites, params, deltas, prefix_md, batch), axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def read_tokens(
    config: LMConfig,
    sites: Sites,
    params: Params,
    deltas: Deltas,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
    words_aw: Int[AnyArray, "a w"],
) -> Float[Array, "a w"]:
    """Log-probability of each of the tokens at each answer row; anything where unused."""

    def of_part(params: Params, deltas: Deltas, prefix_md: Array, batch: Batch, words_aw: Array) -> Array:
        logprob_aV = _logprobs(config, sites, params, deltas, prefix_md, batch)
        return jnp.take_along_axis(logprob_aV, words_aw, axis=-1)

    given = (params, deltas), (prefix_md, batch, words_aw)
    return sharding.lay(sharding.over_data(of_part, *given, sharding.ROWS, batch.parts), None, None)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _drift(
    config: LMConfig,
    sites: Sites,
    params: Params,
    before: Deltas,
    after: Deltas,
    prefix_md: Float[Array, "m d"],
    batch: Batch,
) -> tuple[Bool[Array, " a"], Float[Array, " a"]]:
    """(whether the likeliest token is the same, KL(before || after)) of each answer row; anything where unused."""

    def of_part(params: Params, before: Deltas, after: Deltas, prefix_md: Array, batch: Batch):
        old_aV, new_aV = (_logprobs(config, sites, params, deltas, prefix_md, batch) for deltas in (before, after))
        kl_a = jnp.sum(jnp.exp(old_aV) * (old_aV - new_aV), axis=-1)
        return jnp.argmax(old_aV, axis=-1) == jnp.argmax(new_aV, axis=-1), jnp.maximum(kl_a, 0.0)

    given = (params, before, after), (prefix_md, batch)
    same_a, kl_a = sharding.over_data(of_part, *given, sharding.ROWS, batch.parts)
    return sharding.lay(same_a, None), sharding.lay(kl_a, None)
