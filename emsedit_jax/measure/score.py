"""Teacher-forced scores: the share of answer tokens that are likeliest, or beat another one (METHODS section 7)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emsedit_jax import sharding
from emsedit_jax.data.scoring import ScorePlan, Unit
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.late import one_late
from emsedit_jax.measure.scores import NAMES
from emsedit_jax.types import NO_LABEL, AnyArray, Batch, Deltas, Sites

Shares = dict[str, np.ndarray]  # ES, GS, LS -> share right of each prompt, in the order given


@functools.partial(jax.jit, static_argnums=(0, 1))
def score_batch(
    config: LMConfig, sites: Sites, params: Params, deltas: Deltas, prefix_md: Float[Array, "m d"], batch: Batch
) -> Bool[Array, " a"]:
    """Whether the label of each answer row is the likeliest token, or likelier than `versus_a`; False where unused.

    Batches without `versus_a` are another tree, hence another program: what is not compared costs nothing.
    """

    def of_part(params: Params, deltas: Deltas, prefix_md: Array, batch: Batch) -> Array:
        logits_aV = decoder.answer_logits(config, sites, params, deltas, prefix_md, batch)
        likeliest_a = jnp.argmax(logits_aV, axis=-1) == batch.labels_a
        if batch.versus_a is None:
            return likeliest_a
        return jnp.where(batch.versus_a == NO_LABEL, likeliest_a, _beats(logits_aV, batch.labels_a, batch.versus_a))

    right_a = sharding.over_data(of_part, (params, deltas), (prefix_md, batch), sharding.ROWS, batch.parts)
    return sharding.lay(right_a, None)  # for every host to read


def _beats(
    logits_aV: Float[Array, "a V"], labels_a: Int[AnyArray, " a"], versus_a: Int[AnyArray, " a"]
) -> Bool[Array, " a"]:
    """Whether the label's logit is the larger one. A tie is lost, so a token does not beat itself."""

    def logit_of(tokens_a):
        known_a = jnp.where(tokens_a == NO_LABEL, 0, tokens_a)
        return jnp.take_along_axis(logits_aV, known_a[:, None], axis=-1)[:, 0]

    return logit_of(labels_a) > logit_of(versus_a)


def per_item(right_a: Bool[Array | np.ndarray, " a"], batch: Batch) -> Float[np.ndarray, " prompts"]:
    """Share of right answer tokens of each prompt, in the order the prompts were given to the batch."""
    item_a, used_a = np.asarray(batch.item_a), np.asarray(batch.item_a) >= 0
    counts = np.bincount(item_a[used_a])
    return np.bincount(item_a[used_a], np.asarray(right_a)[used_a], minlength=len(counts)) / counts


def score_edits(
    model: Edited, plan: ScorePlan, js: Iterable[int], facts: str = "eval", begun: Callable[[], None] = lambda: None
) -> Iterator[Shares]:
    """The scores of these edit batches' prompts of every kind, batch by batch, each while the next one runs.

    The store of prefixes knows the plan as `facts`; `begun` is called whenever a pass begins.
    """

    def asked() -> Iterator[tuple[int, Unit, Bool[Array, " a"]]]:
        for j in js:
            for number, unit in enumerate(plan.units(j)):
                begun()
                prefix_md = model.prefixes.get(("score", facts, j, number), unit.batch)
                yield j, unit, score_batch(*model.whole, prefix_md, unit.batch)

    for _, passes in itertools.groupby(one_late(asked()), key=lambda one: one[0]):
        found: dict[str, list[tuple[int, float]]] = {kind: [] for kind in NAMES}
        for _, unit, right_a in passes:
            for (kind, place), share in zip(unit.sources, per_item(right_a, unit.batch), strict=True):
                found[kind].append((place, float(share)))
        yield {NAMES[kind]: np.array([share for _, share in sorted(pairs)]) for kind, pairs in found.items()}


def means(shares: Sequence[Shares]) -> dict[str, float]:
    """Mean share of each score over all prompts, in percent; without those of which there are none."""
    found = {name: np.concatenate([one[name] for one in shares]) for name in NAMES.values()}
    return {name: 100 * float(values.mean()) for name, values in found.items() if values.size}
