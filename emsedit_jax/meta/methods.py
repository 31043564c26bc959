"""The editors, one record each: everything that tells them apart."""

from __future__ import annotations

from typing import NamedTuple

from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule, learned_ridge, normalised_ridge
from emsedit_jax.errors import InputError, near


class Method(NamedTuple):
    """An editor: how a trace becomes a shift, and how its networks learn."""

    name: str
    title: str  # for people
    rule: ShiftRule  # METHODS section 4
    learned: bool  # has networks to be trained
    drift_power: int  # the program's weight on ||W - W0||^2 is reg_coef to this power (METHODS section 6)


METHODS = {
    "emsedit": Method("emsedit", "EMSEdit (arXiv 2508.04012)", learned_ridge, learned=True, drift_power=2),
    "ultraedit": Method("ultraedit", "UltraEdit (arXiv 2505.14679)", normalised_ridge, learned=False, drift_power=0),
}


def method(name: str) -> Method:
    """The record of an editor. Raises InputError for an unknown name."""
    if name not in METHODS:
        raise InputError(f"unknown editor {name!r} (known: {', '.join(METHODS)}).{near(name, METHODS)}")
    return METHODS[name]


def net_specs(method: Method, *, iters: int, lr: float, rank: int = 0, n_blocks: int = 0) -> tuple[NetSpec, ...]:
    """The network of each edit step: step i has rank `rank // (i + 1)` (METHODS section 3)."""
    return tuple(NetSpec(max(rank // (i + 1), 1) if method.learned else 0, n_blocks, lr) for i in range(iters))
