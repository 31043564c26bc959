"""Lifelong running statistics of the rows [key; value gradient], as init / update / apply (METHODS section 2)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from emsedit_jax.types import AnyArray, NormStats

EPSILON = float(np.finfo(np.float32).eps)


def init(width: int) -> NormStats:
    """Nothing seen yet: the first rows pass unchanged in scale only after an update."""
    return NormStats(jnp.zeros((), jnp.int32), jnp.zeros(width, jnp.float32), jnp.zeros(width, jnp.float32))


def update(stats: NormStats, rows_snc: Float[Array, "s n c"], used_n: Bool[AnyArray, " n"]) -> NormStats:
    """Merges all used rows of all sites by the parallel-variance formula."""
    used_n1 = used_n[:, None]
    m = used_n.sum().astype(jnp.int32) * rows_snc.shape[0]
    size = jnp.maximum(m, 1).astype(jnp.float32)
    mean_c = jnp.sum(jnp.where(used_n1, rows_snc, 0.0), axis=(0, 1)) / size
    spread_c = jnp.sum(jnp.where(used_n1, jnp.square(rows_snc - mean_c), 0.0), axis=(0, 1))  # m times the variance
    count = stats.count + m
    old, new, total = (x.astype(jnp.float32) for x in (stats.count, m, jnp.maximum(count, 1)))
    step_c = mean_c - stats.mean_c
    m2_c = stats.var_c * old + spread_c + jnp.square(step_c) * (old * (new / total))
    any_rows = m > 0
    return NormStats(
        count,
        jnp.where(any_rows, stats.mean_c + step_c * (new / total), stats.mean_c),
        jnp.where(any_rows, m2_c / total, stats.var_c),
    )


def std(stats: NormStats) -> Float[Array, " c"]:
    """Standard deviation with count - 1; one before any row is seen."""
    count = stats.count.astype(jnp.float32)
    return jnp.where(stats.count > 0, jnp.sqrt(stats.var_c * count / jnp.maximum(count - 1 + 1e-8, 1e-8)), 1.0)


def apply(stats: NormStats, rows_snc: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
    """(rows - mean) / (std + float32's epsilon)."""
    return (rows_snc - stats.mean_c) / (std(stats) + EPSILON)
