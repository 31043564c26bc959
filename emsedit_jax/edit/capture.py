"""Capture: keys and value gradients of every edit site in one forward and one backward pass (METHODS section 1)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.layout import of_batch
from emsedit_jax.lm.params import Params
from emsedit_jax.types import Batch, Deltas, Probes, Sites, Trace


def cross_entropy(logits_Va: Float[Array, "V a"], batch: Batch) -> tuple[Float[Array, ""], Float[Array, " a"]]:
    """(weighted sum over answer rows, each row's own cross-entropy; zero where unused), in nats.

    The logits have the vocabulary first (`decoder.logits_Va`).
    """
    assert logits_Va.shape[1:] == batch.labels_a.shape
    ce_a = _cross_entropy(logits_Va, batch.labels_a)
    return jnp.sum(ce_a * batch.weights_a), ce_a


@jax.custom_vjp
def _cross_entropy(logits_Va: Array, labels_a: Array) -> Array:
    return _cross_entropy_forth(logits_Va, labels_a)[0]


def _cross_entropy_forth(logits_Va: Array, labels_a: Array) -> tuple[Array, tuple]:
    used_a = labels_a >= 0
    label_logits_a = jnp.take_along_axis(logits_Va, jnp.where(used_a, labels_a, 0)[None], axis=0)[0]
    total_a = jax.nn.logsumexp(logits_Va, axis=0)
    return jnp.where(used_a, total_a - label_logits_a, 0.0), (logits_Va, labels_a, total_a)


def _cross_entropy_back(given: tuple, found_a: Array) -> tuple[Array, None]:
    """`(softmax - one at the label) found` in one go over the logits; JAX would scatter into another array of them."""
    logits_Va, labels_a, total_a = given
    at_label_Va = jnp.arange(logits_Va.shape[0])[:, None] == labels_a
    softmax_Va = jnp.exp(logits_Va - total_a)
    return jnp.where(labels_a >= 0, found_a, 0.0) * (softmax_Va - at_label_Va), None


_cross_entropy.defvjp(_cross_entropy_forth, _cross_entropy_back)


@functools.partial(jax.jit, static_argnums=(0, 1))
def prefix(config: LMConfig, sites: Sites, params: Params, batch: Batch) -> Float[Array, "m d"]:
    """Hidden states below the lowest edit site, good for every pass over this batch, whatever the edits.

    The rows of p, then those of a; of a batch in parts, part after part.
    """
    stop = decoder.lowest_layer(sites)

    def below(params: Params, batch: Batch) -> Array:
        places = batch.tokens_bt, batch.positions_bt, batch.segments_bt
        return decoder.prefix(config, params, stop, *places, of_batch(batch))

    return sharding.over_data(below, (params,), (batch,), sharding.ROWS, batch.parts)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompts of one kind of an edit batch, in one pass or several, with the hidden states below the edits."""

    batches: Sequence[Batch]
    below: Callable[[int], Float[Array, "m d"]]  # number of a pass -> its prefix; asked again in every pass

    def passes(self) -> Iterator[tuple[Float[Array, "m d"], Batch]]:
        """(prefix, batch) of each pass, one at a time."""
        return ((self.below(number), batch) for number, batch in enumerate(self.batches))

    @property
    def rows(self) -> int:
        """Rows that a capture takes in, padding included."""
        return sum(batch.capture_at_n.shape[0] for batch in self.batches)


def prompts(config: LMConfig, sites: Sites, params: Params, batches: Sequence[Batch]) -> Prompts:
    """The batches with their prefixes, all held at once; a run keeps them in a bounded store instead."""
    return Prompts(batches, [prefix(config, sites, params, batch) for batch in batches].__getitem__)


@functools.partial(jax.jit, static_argnums=(0, 1))
def capture(
    config: LMConfig, sites: Sites, params: Params, deltas: Deltas, prefix_md: Float[Array, "m d"], batch: Batch
) -> Trace:
    """Keys and value gradients of all sites on the edited model (weights + deltas).

    The model is asked for the gradient of zero probes that are added to the sites' outputs at the captured rows. The
    loss is the sum of the micro-batches' mean cross-entropies, through the rows' weights.
    """

    def of_part(params: Params, deltas: Deltas, prefix_md: Array, batch: Batch) -> tuple:
        def loss_of(probes: Probes):
            x_ad, keys = decoder.answer_states(config, sites, params, deltas, prefix_md, batch, probes)
            loss, ce_a = cross_entropy(decoder.logits_Va(config, params, x_ad), batch)
            return loss, (keys, ce_a)

        n = batch.capture_at_n.shape[0]
        probes = tuple((jnp.zeros((n, group.v), jnp.float32),) * len(group.layers) for group in sites)
        loss, pull, (keys, ce_a) = jax.vjp(loss_of, probes, has_aux=True)
        (grads_of_sites,) = pull(jnp.ones_like(loss))
        grads = tuple(map(jnp.stack, grads_of_sites))  # of probes in one array: a sum of as many, zeros but for a site
        return keys, grads, jnp.asarray(batch.captured_n), sharding.total(loss), ce_a

    rows_snx = jax.sharding.PartitionSpec(None, sharding.DATA)
    out = (rows_snx, rows_snx, sharding.ROWS, sharding.WHOLE, sharding.ROWS)
    return Trace(*sharding.over_data(of_part, (params, deltas), (prefix_md, batch), out, batch.parts))
