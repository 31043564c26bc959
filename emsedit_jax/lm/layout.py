"""Tokens in flat rows, without the padding of the rectangle that attention works on, and the captured ones of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from emsedit_jax.types import AnyArray, Batch


@jax.custom_vjp
def take(
    rows: Shaped[Array, "_from x"], at: Int[AnyArray, " _to"], back: Int[AnyArray, " _from"]
) -> Shaped[Array, "_to x"]:
    """Some of an array's rows, each at most once; zeros where `at` is past its end.

    `back` says where each row goes, past the end where nowhere: so that the derivative is a take as well. JAX would
    scatter, which XLA does row by row on a CPU.
    """
    return rows.at[at].get(mode="fill", fill_value=0)


def _take(rows: Array, at: Array, back: Array) -> tuple[Array, Array]:
    return take(rows, at, back), back


def _take_back(back: Array, found: Array) -> tuple[Array, None, None]:
    return found.at[back].get(mode="fill", fill_value=0), None, None


take.defvjp(_take, _take_back)


class Layout(NamedTuple):
    """Where tokens in flat rows lie in the [b, t] that attention works on: linear maps then see no padding of rows."""

    place_m: Int[AnyArray, " m"]  # place of each flat row in the flattened [b * t]; past its end where unused
    row_bt: Int[AnyArray, "b t"]  # the flat row of each place; past the last where unused

    def spread(self, parts: tuple[Float[Array, "_ x"], ...]) -> Float[Array, "b t x"]:
        """Flat rows to the rectangle; zeros where unused."""
        found = take(jnp.concatenate(parts), self.row_bt.reshape(-1), self.place_m)
        return found.reshape(*self.row_bt.shape, -1)

    def collect(self, y_btx: Shaped[AnyArray, "b t x"]) -> Shaped[Array, "m x"]:
        """The rectangle's rows as flat ones; zeros where unused."""
        return take(jnp.asarray(y_btx).reshape(-1, y_btx.shape[-1]), self.place_m, self.row_bt.reshape(-1))


def cut(rows_mx: Array, like: tuple[Array, ...]) -> tuple[Array, ...]:
    """Flat rows in parts of those sizes."""
    return tuple(jnp.split(rows_mx, np.cumsum([part.shape[0] for part in like])[:-1]))


def of_batch(batch: Batch) -> Layout:
    """The rows of p first, then those of a."""
    place_m = jnp.concatenate([batch.prompt_at_p, batch.answer_at_a])
    row_of = numbered(place_m, batch.tokens_bt.size)
    return Layout(place_m, row_of.reshape(batch.tokens_bt.shape))


class Captured(NamedTuple):
    """Which rows are captured."""

    row_n: Int[AnyArray, " n"]  # past the end where unused
    number_m: Int[AnyArray, " m"]  # of each row, which of the captured it is; past the last where it is none

    def spread(self, y_nx: Float[Array, "n x"]) -> Float[Array, "m x"]:
        """The captured rows among all; zeros elsewhere."""
        return take(y_nx, self.number_m, self.row_n)

    def collect(self, y_mx: Float[Array, "m x"]) -> Float[Array, "n x"]:
        """Those of all rows; zeros where unused."""
        return take(y_mx, self.row_n, self.number_m)


def captured_of(row_n: Int[AnyArray, " n"], rows: int) -> Captured:
    """These of so many rows."""
    return Captured(row_n, numbered(row_n, rows))


def numbered(at_n: Int[AnyArray, " n"], size: int) -> Int[Array, " size"]:
    """The way back from indices: of each of `size` places, which of the indices names it; n where none does."""
    count = at_n.shape[0]
    return jnp.full(size, count, jnp.int32).at[at_n].set(jnp.arange(count), mode="drop")
