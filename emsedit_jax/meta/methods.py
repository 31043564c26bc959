"""The editors, one record each: everything that tells them apart."""

from __future__ import annotations

from typing import Literal, NamedTuple

from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import LEARNED_RIDGE, NORMALISED_RIDGE, PSEUDO_PRODUCT, ShiftRule
from emsedit_jax.errors import InputError, near


class Method(NamedTuple):
    """An editor: how a trace becomes a shift, and how its networks learn (METHODS sections 3, 4 and 6).

    A training is either a trajectory, with a network for every step and edits that stay, or step-wise: one network for
    all steps, which is updated after each, and edits that are taken back.
    """

    name: str
    title: str  # for people
    rule: ShiftRule
    learned: bool = True  # has networks to be trained
    stepwise: Literal["never", "batch", "always"] = "never"  # "batch": where num_seq is 1
    locality: bool = False  # the meta-loss holds the divergence on unrelated prompts
    replay: bool = False  # and what former batches taught
    drift: Literal["", "start", "step"] = ""  # the meta-loss holds the squared distance from the weights there

    def is_stepwise(self, num_seq: int) -> bool:
        """Whether training with so many batches is step-wise."""
        return self.stepwise == "always" or (self.stepwise == "batch" and num_seq == 1)

    def drift_coef(self, reg_coef: float, num_seq: int, reading: str) -> float:
        """What the squared distance is multiplied by.

        The published program multiplies EMSEdit's by reg_coef twice along a trajectory, and takes no gradient of
        RLEdit's; the papers multiply once.
        """
        if not self.drift:
            return 0.0
        if reading == "paper":
            return reg_coef
        if self.replay:
            return 0.0
        return reg_coef if self.is_stepwise(num_seq) else reg_coef**2


METHODS = {
    method.name: method
    for method in (
        Method("emsedit", "EMSEdit (arXiv 2508.04012)", LEARNED_RIDGE, stepwise="batch", drift="start"),
        Method("rledit", "RLEdit (arXiv 2502.05759)", LEARNED_RIDGE, locality=True, replay=True, drift="step"),
        Method("malmen", "MALMEN (arXiv 2311.04661)", LEARNED_RIDGE, stepwise="always", locality=True),
        Method("mend", "MEND (arXiv 2110.11309)", PSEUDO_PRODUCT, stepwise="always", locality=True),
        Method("ultraedit", "UltraEdit (arXiv 2505.14679)", NORMALISED_RIDGE, learned=False),
    )
}


def method(name: str) -> Method:
    """The record of an editor. Raises InputError for an unknown name."""
    if name not in METHODS:
        raise InputError(f"unknown editor {name!r} (known: {', '.join(METHODS)}).{near(name, METHODS)}")
    return METHODS[name]


def net_specs(
    method: Method, *, iters: int, lr: float, num_seq: int = 2, rank: int = 0, n_blocks: int = 0
) -> tuple[NetSpec, ...]:
    """The networks: one that all steps share where training is step-wise, else one a step, of rank `rank // (i + 1)`.

    An editor without networks has a spec for every step all the same: each step has a normaliser of its own.
    """
    if method.is_stepwise(num_seq):
        return (NetSpec(rank, n_blocks, lr),)
    return tuple(NetSpec(max(rank // (i + 1), 1) if method.learned else 0, n_blocks, lr) for i in range(iters))
