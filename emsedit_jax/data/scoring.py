"""What a run scores: the prompts of every kind of an edit batch, packed together into passes of one shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.data.packing import PackShape, pack, plan_shape
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.types import Batch

_TOKEN_RULE = "ans"  # scoring captures nothing; answer rows are what it reads


class Unit(NamedTuple):
    """One scoring pass: prompts packed together, and where each comes from."""

    batch: Batch
    sources: tuple[tuple[str, int], ...]  # (kind, place among the edit batch's prompts of that kind), as packed


@dataclasses.dataclass(frozen=True, eq=False)
class ScorePlan:
    """The scoring passes of a run, batch by batch; packed when asked for."""

    plan: EditPlan
    shape: PackShape
    cuts: Sequence[Sequence[Sequence[tuple[str, int]]]]  # [batches][passes][prompts]

    def units(self, j: int) -> list[Unit]:
        """The passes that score edit batch j."""
        return [
            Unit(pack(_items(self.plan, j, sources), len(sources), _TOKEN_RULE, self.shape), tuple(sources))
            for sources in self.cuts[j]
        ]


def plan_scoring(plan: EditPlan, max_tokens: int) -> ScorePlan:
    """Cuts each edit batch's prompts into passes of at most about `max_tokens` tokens, all of one shape."""
    cuts = [_cut(plan, j, max_tokens) for j in range(len(plan))]
    shape = plan_shape([_items(plan, j, sources) for j, passes in enumerate(cuts) for sources in passes], _TOKEN_RULE)
    return ScorePlan(plan, shape, cuts)


def _items(plan: EditPlan, j: int, sources: Sequence[tuple[str, int]]) -> list[TokenItem]:
    return [plan.items[kind][j][place] for kind, place in sources]


def _cut(plan: EditPlan, j: int, max_tokens: int) -> list[list[tuple[str, int]]]:
    passes: list[list[tuple[str, int]]] = [[]]
    held = 0
    for kind in KINDS:
        for place, item in enumerate(plan.items[kind][j]):
            if passes[-1] and held + len(item.tokens) > max_tokens:
                passes.append([])
                held = 0
            passes[-1].append((kind, place))
            held += len(item.tokens)
    return passes
