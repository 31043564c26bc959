"""The ridge solves of a group over all devices: by site, and where the sites do not go round, by site and columns.

Along `data` each device solves some of the sites. Of eight devices twelve sites would keep six busy; every site is
then solved in two pieces, each for half of the columns of Y. Pieces of a site have its system in common, which each
makes for itself: small beside the columns, or it is not done.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from emsedit_jax import sharding
from emsedit_jax.edit import solve
from emsedit_jax.types import SiteGroup


def solved(
    group: SiteGroup, x_snk: Float[Array, "s n k"], y_snv: Float[Array, "s n v"], lambda_s: Float[Array, " s"]
) -> solve.Solved:
    """The ridge solves of a group, gathered along `data`; the error of a site is that of its worst piece."""
    found = in_pieces(group, x_snk, y_snv, lambda_s)
    together_zkv = sharding.lay_edit(group, found.delta_skv)
    pieces = found.error_s.shape[0] // len(group.layers)
    if pieces == 1:
        return found._replace(delta_skv=together_zkv)
    s, k, v, blocks = len(group.layers), group.k, group.v, _blocks(group)
    shift_spkmv = together_zkv.reshape(s, pieces, k, blocks, v // pieces // blocks)
    shift_skv = jnp.transpose(shift_spkmv, (0, 2, 3, 1, 4)).reshape(s, k, v)
    error_sp = sharding.lay(found.error_s, None).reshape(s, pieces)  # over devices a largest may pass over what is NaN
    return solve.Solved(sharding.lay_edit(group, shift_skv), jnp.max(error_sp, axis=1))


def in_pieces(group: SiteGroup, x_snk: Array, y_snv: Array, lambda_s: Array) -> solve.Solved:
    """The same where it was solved: nothing is gathered yet, a site's pieces [k v/pieces] are one after the other."""
    x_snk, y_snv = (sharding.lay(rows, None, sharding.DATA, sharding.MODEL) for rows in (x_snk, y_snv))
    pieces = pieces_of(group, x_snk.shape[1])
    if pieces > 1:
        s, n, v = y_snv.shape
        blocks = _blocks(group)
        y_spnmv = jnp.transpose(y_snv.reshape(s, n, blocks, pieces, v // pieces // blocks), (0, 3, 1, 2, 4))
        y_snv = y_spnmv.reshape(s * pieces, n, v // pieces)
        x_snk, lambda_s = (jnp.repeat(one, pieces, axis=0) for one in (x_snk, lambda_s))
    return sharding.over_sites(functools.partial(_ridge, group), x_snk, y_snv, lambda_s)


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
    x_snk = sharding.lay(x_snk, None, None, sharding.MODEL)
    y_snv = sharding.lay(y_snv, None, None, sharding.MODEL if group.wide == "v" else None)
    found = solve.ridge(x_snk, y_snv, lambda_s)
    return found._replace(delta_skv=sharding.lay_edit(group, found.delta_skv))
