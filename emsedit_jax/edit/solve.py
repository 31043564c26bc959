"""The ridge solve `Delta = (X^T X + lambda I)^-1 X^T Y` of METHODS section 4, in its two equal forms."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SMALL = 256  # systems up to this size are inverted by doubling, larger ones by a triangular solve
WORST_ERROR = 1e-2
TINY = float(np.finfo(np.float32).tiny)  # a solution of zero has the error zero


class Solved(NamedTuple):
    """A solution, and an estimate of its relative error: how far one more solve, of what it leaves, would move it.

    Where that is above `WORST_ERROR`, or not a number, the solution is NaN: a system too near to singular for float32
    gives no numbers that could be taken for an answer.
    """

    delta_skv: Float[Array, "s k v"]
    error_s: Float[Array, " s"]
    rows_snv: Float[Array, "s n v"] | None = None  # the dual rows, of which it is X^T; None where it came otherwise


def ridge(x_snk: Float[Array, "s n k"], y_snv: Float[Array, "s n v"], lambda_s: Float[Array, " s"]) -> Solved:
    """Ridge solution of each site, in the cheaper form: with rows fewer than the key width, an n x n system.

    Rows of zeros change nothing. Differentiable in y and lambda.

    >>> x_snk, y_snv = jnp.asarray([[[1.0, 0.0, 2.0]]]), jnp.asarray([[[6.0, 12.0]]])  # one site, one row
    >>> ridge(x_snk, y_snv, jnp.ones(1)).delta_skv.round(3).tolist()
    [[[1.0, 2.0], [0.0, 0.0], [2.0, 4.0]]]
    >>> primal(x_snk, y_snv, jnp.ones(1)).delta_skv.round(3).tolist()
    [[[1.0, 2.0], [0.0, 0.0], [2.0, 4.0]]]
    """
    with jax.default_matmul_precision("highest"):
        return (dual if chooses_dual(x_snk.shape[1], x_snk.shape[2]) else primal)(x_snk, y_snv, lambda_s)


def chooses_dual(n: int, k: int) -> bool:
    """True where the n x n system is the smaller one."""
    return n < k


def dual(x_snk: Array, y_snv: Array, lambda_s: Array) -> Solved:
    """`X^T (X X^T + lambda I)^-1 Y`: cost n^2 k + n^3 / 3 + n^2 v + n k v a site."""
    solved = dual_rows(x_snk, y_snv, lambda_s)
    return Solved(of_rows(x_snk, solved.delta_skv), solved.error_s, solved.delta_skv)


def of_rows(x_snk: Array, rows_snv: Array) -> Array:
    """The shift [s k v] of `dual_rows`."""
    return jnp.einsum("snk,snv->skv", x_snk, rows_snv)


def dual_rows(x_snk: Array, y_snv: Array, lambda_s: Array) -> Solved:
    """`dual` without its last product, `X^T`: a row of values for each row of keys."""
    return solve(jnp.einsum("snk,smk->snm", x_snk, x_snk), y_snv, lambda_s)


def primal(x_snk: Array, y_snv: Array, lambda_s: Array) -> Solved:
    """`(X^T X + lambda I)^-1 (X^T Y)`: cost n k^2 + k^3 / 3 + k^2 v a site."""
    return solve(jnp.einsum("snk,snj->skj", x_snk, x_snk), jnp.einsum("snk,snv->skv", x_snk, y_snv), lambda_s)


def solve(gram_smm: Array, right_smv: Array, lambda_s: Array) -> Solved:
    """`(gram + lambda I)^-1 right` by Cholesky: symmetric and, with lambda > 0, positive definite.

    Stated as a linear solve, so that its derivative is the same solve once more, as in METHODS section 6, and not the
    derivative of a factorisation.
    """
    system_smm = gram_smm + lambda_s[:, None, None] * jnp.eye(gram_smm.shape[-1], dtype=gram_smm.dtype)
    inverse_smm = _inverse_factor(jax.lax.stop_gradient(system_smm))

    def multiply(x_smv: Array) -> Array:
        return jnp.einsum("smj,sjv->smv", system_smm, x_smv)

    def by_factor(_, b_smv: Array) -> Array:
        return jnp.einsum("sjm,sjv->smv", inverse_smm, jnp.einsum("smj,sjv->smv", inverse_smm, b_smv))

    x_smv = jax.lax.custom_linear_solve(multiply, right_smv, by_factor, symmetric=True)
    correction_smv = jax.lax.stop_gradient(by_factor(None, right_smv - multiply(x_smv)))
    error_s = _norm(correction_smv) / jnp.maximum(jax.lax.stop_gradient(_norm(x_smv)), TINY)
    sound_s11 = (error_s <= WORST_ERROR)[:, None, None]
    return Solved(jnp.where(sound_s11, x_smv + correction_smv, jnp.nan), error_s)


def _norm(x_smv: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x_smv), axis=(1, 2)))


def _inverse_factor(system_smm: Array) -> Array:
    """L^-1 of the Cholesky factor L, so that solving is two products with every right-hand side at once."""
    factor_smm = jnp.linalg.cholesky(system_smm)
    m = factor_smm.shape[-1]
    if m > SMALL:
        eye_smm = jnp.broadcast_to(jnp.eye(m, dtype=factor_smm.dtype), factor_smm.shape)
        return jax.scipy.linalg.solve_triangular(factor_smm, eye_smm, lower=True)
    return _inverse_by_doubling(factor_smm)


def _inverse_by_doubling(factor_smm: Array) -> Array:
    """Inverts small lower-triangular matrices by block substitution with blocks of 1, 2, 4, ..., in products alone.

    With the diagonal blocks A, B inverted, `[[A, 0], [C, B]]` has the inverse `[[A^-1, 0], [-B^-1 C A^-1, B^-1]]`. No
    triangular solve is called: on CPU that is a LAPACK call, whose threads fight with XLA's for the same cores.
    """
    m = factor_smm.shape[-1]
    place_m = np.arange(m)
    inverse_smm = jnp.eye(m, dtype=factor_smm.dtype) / jnp.diagonal(factor_smm, axis1=1, axis2=2)[:, None, :]
    size = 1
    while size < m:
        block_m = place_m // size
        below_mm = (block_m[:, None] == block_m[None, :] + 1) & (block_m[:, None] % 2 == 1)  # the blocks C
        corner_smm = jnp.where(below_mm, factor_smm, 0.0)
        inverse_smm = inverse_smm - jnp.einsum("sij,sjk,skl->sil", inverse_smm, corner_smm, inverse_smm)
        size *= 2
    return inverse_smm
