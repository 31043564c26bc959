"""The ridge solves of a group over all devices: by site, and where the sites do not go round, by site and columns.

Along `data` each device solves some of the sites. Of eight devices twelve sites would keep six busy; every site is
then solved in two pieces, each for half of the columns of Y. Pieces of a site have its system in common, which each
makes for itself: small beside the columns, or it is not done.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import solve
from emsedit_jax.types import SiteGroup


def solved(
    group: SiteGroup, x_snk: Float[Array, "s n k"], y_snv: Float[Array, "s n v"], lambda_s: Float[Array, " s"]
) -> solve.Solved:
    """The ridge solves of a group, gathered along `data`; the error of a site is that of its worst piece."""
    found = _in_pieces(group, x_snk, y_snv, lambda_s)
    error_s, over_k, over_v = found.error_s, *sharding.of_edit(group)
    if error_s.shape[0] > len(group.layers):
        error_z = sharding.lay(error_s, None)  # over devices a largest may pass over what is NaN
        error_s = jnp.max(error_z.reshape(len(group.layers), -1), axis=1)
    rows_snv = None if found.rows_snv is None else _gathered(group, found.rows_snv, None, over_v)
    return solve.Solved(_gathered(group, found.delta_skv, over_k, over_v), error_s, rows_snv)


@jax.default_matmul_precision("highest")
def multiplied(group: SiteGroup, x_snk: Float[Array, "s n k"], rows_snv: Float[Array, "s n v"]) -> Array:
    """The shift [s k v] of dual rows, made over devices as `solved` made it: of the same products."""
    found = sharding.over_sites(functools.partial(_product, group), *_cut(group, x_snk, rows_snv))
    return _gathered(group, found, *sharding.of_edit(group))


def in_pieces(group: SiteGroup, x_snk: Array, y_snv: Array, lambda_s: Array) -> solve.Solved:
    """The shift where it was solved: nothing is gathered yet, a site's pieces [k v/pieces] are one after the other."""
    return _in_pieces(group, x_snk, y_snv, lambda_s)._replace(rows_snv=None)


def _in_pieces(group: SiteGroup, x_snk: Array, y_snv: Array, lambda_s: Array) -> solve.Solved:
    """With the dual rows, in the same pieces."""
    lambda_z = jnp.repeat(lambda_s, pieces_of(group, x_snk.shape[1]), axis=0)
    return sharding.over_sites(functools.partial(_ridge, group), *_cut(group, x_snk, y_snv), lambda_z)


def _cut(group: SiteGroup, x_snk: Array, y_snv: Array) -> tuple[Array, Array]:
    """The rows of every piece: those of X whole, of Y its columns."""
    x_snk, y_snv = (sharding.lay(rows, None, sharding.DATA, sharding.MODEL) for rows in (x_snk, y_snv))
    pieces, blocks = pieces_of(group, x_snk.shape[1]), _blocks(group)
    if pieces == 1:
        return x_snk, y_snv
    s, n, v = y_snv.shape
    y_spnmv = jnp.transpose(y_snv.reshape(s, n, blocks, pieces, v // pieces // blocks), (0, 3, 1, 2, 4))
    return jnp.repeat(x_snk, pieces, axis=0), y_spnmv.reshape(s * pieces, n, v // pieces)


def _gathered(group: SiteGroup, x_zmv: Array, over_m: str | None, over_v: str | None) -> Array:
    """The sites [s m v] of their pieces [m v/pieces], one after the other, whole along `data`."""
    x_zmv = sharding.lay(x_zmv, None, over_m, over_v)
    s, m, blocks = len(group.layers), x_zmv.shape[1], _blocks(group)
    pieces = x_zmv.shape[0] // s
    if pieces == 1:
        return x_zmv
    x_spmbv = x_zmv.reshape(s, pieces, m, blocks, group.v // pieces // blocks)
    x_smv = jnp.transpose(x_spmbv, (0, 2, 3, 1, 4)).reshape(s, m, group.v)
    return sharding.lay(x_smv, None, over_m, over_v)


def pieces_of(group: SiteGroup, n: int) -> int:
    """In how many pieces a site with n rows is solved: so many that the devices along `data` divide what there is.

    One where they divide the sites, or not the columns, or where making each system more than once would take longer
    than a device that waits.
    """
    devices, sites = sharding.size(sharding.DATA), len(group.layers)
    pieces = devices // math.gcd(devices, sites)
    if group.v % (pieces * _blocks(group)):
        return 1
    k, v, m = group.k, group.v, min(n, group.k)
    system, columns = m * m * (max(n, k) + m), (n * k + 4 * m * m) * v
    divided = sites * pieces // devices * (system + columns / pieces)
    return pieces if divided < -(-sites // devices) * (system + columns) else 1


def filling(group: SiteGroup, n: int, streamed: bool) -> int:
    """How many sites of ones the solves of a group are filled up with; streamed rows are solved site by site."""
    pieces = 1 if streamed else pieces_of(group, n)
    return -len(group.layers) * pieces % sharding.size(sharding.DATA)


def _blocks(group: SiteGroup) -> int:
    """Blocks of columns that lie on different devices along `model`: every piece has its share of each."""
    return sharding.size(sharding.MODEL) if sharding.spec_of_edit(group)[2] else 1


def _ridge(group: SiteGroup, x_snk: Array, y_snv: Array, lambda_s: Array) -> solve.Solved:
    """The ridge solve of some of a group's sites, each with all of its rows."""
    found = solve.ridge(*_as_solved(group, x_snk, y_snv), lambda_s)
    return found._replace(delta_skv=sharding.lay_edit(group, found.delta_skv))


def _product(group: SiteGroup, x_snk: Array, rows_snv: Array) -> Array:
    """The last product of `_ridge`, by itself."""
    return sharding.lay_edit(group, solve.of_rows(*_as_solved(group, x_snk, rows_snv)))


def _as_solved(group: SiteGroup, x_snk: Array, y_snv: Array) -> tuple[Array, Array]:
    """How the rows lie along `model` where they are solved."""
    y_snv = sharding.lay(y_snv, None, None, sharding.MODEL if group.wide == "v" else None)
    return sharding.lay(x_snk, None, None, sharding.MODEL), y_snv
