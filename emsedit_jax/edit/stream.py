"""A shift from more rows than the device should hold at once: two sums over chunks of rows, and one solve at the end.

Both sums are as wide as the keys, whatever the number of rows: `X^T X` and `X^T Y` of METHODS section 4, or the latter
alone for a rule without a ridge. Chunks wait in host memory, without the padding of the passes they come from.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import solve
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule, over_devices, rows_of
from emsedit_jax.types import Deltas, SiteGroup, Sites, Stats, Theta, Trace, pytree

CHUNK = 256  # rows that go through the network together: of its values on the way there are a dozen times as many
GRAM = (sharding.MODEL, None)  # where the columns of `X^T X` lie


class Waiting:
    """Captured rows in host memory, gathered from passes of any size into chunks of one.

    Over several devices a chunk is what a pass captured: each process keeps the rows of its own devices.
    """

    def __init__(self, sites: Sites, rows: int):
        self._sites, self._rows, self._used = sites, rows, 0
        self._chunks: list[Trace] = []

    def add(self, trace: Trace) -> None:
        """Takes over the rows in use: those captured, and those held, which have a key all the same."""
        if not sharding.alone():
            self._chunks.append(jax.tree.map(sharding.Apart, trace))
            return
        trace = jax.device_get(trace)
        places = np.flatnonzero(trace.captured_n | np.any(trace.keys[0][0] != 0, axis=-1))
        while len(places):
            if self._used == self._rows * len(self._chunks):
                self._chunks.append(self._empty())
            chunk, start = self._chunks[-1], self._used % self._rows
            here = places[: self._rows - start]
            into = slice(start, start + len(here))
            for whole, part in ((chunk.keys, trace.keys), (chunk.grads, trace.grads)):
                for whole_snw, part_snw in zip(whole, part, strict=True):
                    whole_snw[:, into] = part_snw[:, here]
            chunk.captured_n[into] = trace.captured_n[here]
            self._used += len(here)
            places = places[len(here) :]

    def chunks(self) -> tuple[Trace, ...]:
        """All rows; those of the last chunk that are not filled are zero and not in use."""
        return tuple(self._chunks)

    def _empty(self) -> Trace:
        def zeros(width: str):
            return tuple(
                np.zeros((len(group.layers), self._rows, getattr(group, width)), np.float32) for group in self._sites
            )

        return Trace(
            zeros("k"), zeros("v"), np.zeros(self._rows, bool), np.zeros((), np.float32), np.zeros(0, np.float32)
        )


@pytree
class Sums:
    """`X^T X` and `X^T Y` of the rows so far, one entry per `SiteGroup`; in front, the parts that rows come in."""

    gram: tuple[Float[Array, "_parts _s _k _k"], ...]  # empty for a rule without a ridge
    right: tuple[Float[Array, "_parts _s _k _v"], ...]


def shift_from(
    sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, traces: Sequence[Trace]
) -> tuple[Deltas, tuple[Array, ...], Sums]:
    """(shift, errors of the solve per group, the sums it was solved from)."""
    sums = no_sums(sites, rule.ridge is not None)
    for trace in traces:
        arriving = together(trace)
        jax.block_until_ready(sums)  # of the chunk before: no more than two are on the device
        sums = add_rows(sites, rule, spec, theta, stats, arriving, sums)
    shift, error = solve_sums(sites, rule, spec, theta, sums)
    return shift, error, sums


def together(trace: Trace) -> Trace:
    """A chunk that waited on the host, on its way to the devices."""

    def there(leaf):
        return leaf.together() if isinstance(leaf, sharding.Apart) else jax.device_put(leaf)

    return jax.tree.map(there, trace, is_leaf=lambda leaf: isinstance(leaf, sharding.Apart))


@functools.partial(jax.jit, static_argnums=(0, 1))
def no_sums(sites: Sites, gram: bool) -> Sums:
    """Of no rows; `gram`: the rule has a ridge."""
    parts = sharding.size(sharding.DATA)
    return _laid(
        sites,
        Sums(
            tuple(jnp.zeros((parts, len(g.layers), g.k, g.k), jnp.float32) for g in sites) if gram else (),
            tuple(jnp.zeros((parts, len(g.layers), g.k, g.v), jnp.float32) for g in sites),
        ),
    )


def _laid(sites: Sites, sums: Sums) -> Sums:
    """Each part's sums where its rows are."""
    right = zip(sums.right, map(sharding.of_edit, sites), strict=True)
    return Sums(
        tuple(sharding.lay(one, sharding.DATA, None, *GRAM) for one in sums.gram),
        tuple(sharding.lay(one, sharding.DATA, None, *axes) for one, axes in right),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=6)
def add_rows(
    sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, stats: Stats, trace: Trace, sums: Sums
) -> Sums:
    """The sums with one chunk's rows in them; statistics are those of all chunks."""
    gram, right = list(sums.gram), list(sums.right)
    with jax.default_matmul_precision("highest"):
        for g, rows in enumerate(rows_of(sites, rule, spec, theta, stats, over_devices(trace))):
            x_psnk, y_psnv = map(_in_parts, rows)
            right[g] += jnp.einsum("psnk,psnv->pskv", x_psnk, y_psnv)
            if rule.ridge is not None:
                gram[g] += jnp.einsum("psnk,psnj->pskj", x_psnk, x_psnk)
    return _laid(sites, Sums(tuple(gram), tuple(right)))


def _in_parts(rows_snx: Array) -> Array:
    """[s n x] -> [p s n x]: the rows of each device along `data` apart, so that summing them moves none."""
    s, _, width = rows_snx.shape
    rows_spnx = rows_snx.reshape(s, sharding.size(sharding.DATA), -1, width)
    return sharding.lay(jnp.moveaxis(rows_spnx, 1, 0), sharding.DATA, None, None, sharding.MODEL)


def _over_parts(sums_psxy: Array, *axes: str | None) -> Array:
    """The sum over all parts, each device along `data` with the sites that it is to solve; x and y lie over `axes`."""
    return sharding.lay(jnp.sum(sums_psxy, axis=0), sharding.DATA, *axes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def solve_sums(
    sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, sums: Sums
) -> tuple[Deltas, tuple[Array, ...]]:
    """(shift, errors) from the sums over all rows."""
    if rule.ridge is None:
        right = tuple(map(sharding.lay_edit, sites, (jnp.sum(one, axis=0) for one in sums.right)))
        return right, tuple(jnp.zeros(len(group.layers)) for group in sites)
    solved = [
        _solved(
            group,
            sums.gram[g],
            _over_parts(sums.right[g], *sharding.of_edit(group)),
            rule.ridge(group, spec, theta[g]),
        )
        for g, group in enumerate(sites)
    ]
    return tuple(one.delta_skv for one in solved), tuple(one.error_s for one in solved)


def _solved(group: SiteGroup, gram_pskk: Array, right_skv: Array, lambda_s: Array) -> solve.Solved:
    """The solve of a group's sites, over all devices."""
    with jax.default_matmul_precision("highest"):
        solved = sharding.over_sites(_site_by_site, _over_parts(gram_pskk, *GRAM), right_skv, lambda_s)
    return solved._replace(delta_skv=sharding.lay_edit(group, solved.delta_skv))


def _site_by_site(gram_skk: Array, right_skv: Array, lambda_s: Array) -> solve.Solved:
    """As `solve.solve`, one site after the other: the factors of wide keys take as much memory as the sums."""

    def one(site: tuple[Array, Array, Array]) -> solve.Solved:
        return jax.tree.map(lambda leaf: leaf[0], solve.solve(*(part[None] for part in site)))

    return jax.lax.map(one, (gram_skk, right_skv, lambda_s))


def pull_back_sums(
    sites: Sites,
    rule: ShiftRule,
    spec: NetSpec,
    theta: Theta,
    stats: Stats,
    traces: Sequence[Trace],
    sums: Sums,
    shift: Deltas,
    gradient: Deltas,
) -> Theta:
    """The vjp of `shift_from` in theta, chunk by chunk (METHODS section 6).

    With U = (X^T X + lambda I)^-1 G held fixed, it is the gradient of `sum <U, X^T Y> - <U, lambda shift>`.
    """
    u, theta_grad = begin_pull_back(sites, rule, spec, theta, sums.gram, shift, gradient)
    for trace in traces:
        arriving = together(trace)
        jax.block_until_ready(theta_grad)
        theta_grad = pull_back_rows(sites, rule, spec, theta, stats, arriving, u, theta_grad)
    return theta_grad


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def begin_pull_back(
    sites: Sites, rule: ShiftRule, spec: NetSpec, theta: Theta, gram: tuple, shift: Deltas, gradient: Deltas
) -> tuple[Deltas, Theta]:
    """(U, the gradient that comes through lambda)."""
    if rule.ridge is None:
        return gradient, jax.tree.map(jnp.zeros_like, theta)
    ridge = rule.ridge
    with jax.default_matmul_precision("highest"):
        u = tuple(
            _solved(group, gram[g], gradient[g], ridge(group, spec, theta[g])).delta_skv
            for g, group in enumerate(sites)
        )

        def through_lambda(theta: Theta) -> Array:
            products_s = [jnp.sum(u[g] * shift[g], axis=(1, 2)) for g in range(len(sites))]
            terms = [jnp.sum(ridge(group, spec, theta[g]) * products_s[g]) for g, group in enumerate(sites)]
            return -sum(terms, jnp.zeros(()))

        return u, jax.grad(through_lambda)(theta)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=7)
def pull_back_rows(
    sites: Sites,
    rule: ShiftRule,
    spec: NetSpec,
    theta: Theta,
    stats: Stats,
    trace: Trace,
    u: Deltas,
    theta_grad: Theta,
) -> Theta:
    """The gradient with one chunk's share of it."""

    def along_u(theta: Theta) -> Array:
        total = jnp.zeros(())
        for g, (x_snk, y_snv) in enumerate(rows_of(sites, rule, spec, theta, stats, over_devices(trace))):
            total += jnp.sum(jnp.einsum("snk,skv->snv", x_snk, u[g]) * y_snv)
        return total

    with jax.default_matmul_precision("highest"):
        return jax.tree.map(jnp.add, theta_grad, jax.grad(along_u)(theta))
