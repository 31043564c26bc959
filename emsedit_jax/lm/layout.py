"""Tokens in flat rows, without the padding of the rectangle that attention works on."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from emsedit_jax.types import AnyArray, Batch


class Layout(NamedTuple):
    """Where tokens in flat rows lie in the [b, t] that attention works on: linear maps then see no padding of rows."""

    place_m: Int[AnyArray, " m"]  # place of each flat row in the flattened [b * t]; past its end where unused
    row_bt: Int[AnyArray, "b t"]  # the flat row of each place; past the last where unused

    def spread(self, parts: tuple[Float[Array, "_ x"], ...]) -> Float[Array, "b t x"]:
        """Flat rows to the rectangle; zeros where unused."""
        return jnp.concatenate(parts).at[self.row_bt].get(mode="fill", fill_value=0)

    def collect(self, y_btx: Shaped[AnyArray, "b t x"]) -> Shaped[Array, "m x"]:
        """The rectangle's rows as flat ones; zeros where unused."""
        return jnp.asarray(y_btx).reshape(-1, y_btx.shape[-1]).at[self.place_m].get(mode="fill", fill_value=0)


def cut(rows_mx: Array, like: tuple[Array, ...]) -> tuple[Array, ...]:
    """Flat rows in parts of those sizes."""
    return tuple(jnp.split(rows_mx, np.cumsum([part.shape[0] for part in like])[:-1]))


def of_batch(batch: Batch) -> Layout:
    """Prompts' rows first, then the answers'."""
    places = batch.tokens_bt.size
    place_m = jnp.concatenate([batch.prompt_at_p, batch.answer_at_a])
    row_of = jnp.full(places, place_m.size, jnp.int32).at[place_m].set(jnp.arange(place_m.size), mode="drop")
    return Layout(place_m, row_of.reshape(batch.tokens_bt.shape))
