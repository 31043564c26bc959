"""What a run scores: the prompts of every kind of an edit batch, packed together into passes of one shape.

Where an answer has to beat another one (CounterFact), what is counted depends on the micro-batches that the published
program scores in: `contest` settles that from the micro-batches, once, before the passes are cut, so that it does not
depend on the passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.data.packing import PackShape, sorted_order
from emsedit_jax.data.parts import dealt, measured, pack_parts
from emsedit_jax.data.shapes import cut_evenly, plan_shapes, roomy_shape
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.types import Batch

_TOKEN_RULE = "ans"  # scoring captures nothing; answer rows are what it reads
_PADDING = 0  # the token that fills the published program's shorter answers


class Unit(NamedTuple):
    """One scoring pass: prompts packed together, and where each comes from."""

    batch: Batch
    sources: tuple[tuple[str, int], ...]  # (kind, place among the edit batch's prompts of that kind), as packed


Items = Mapping[str, Sequence[Sequence[TokenItem]]]  # kind -> [batches][prompts]


@dataclasses.dataclass(frozen=True, eq=False)
class ScorePlan:
    """The scoring passes of a run, batch by batch; packed when asked for."""

    plan: EditPlan
    items: Items  # the plan's, as `contest` leaves them
    shapes: Sequence[PackShape]  # smaller ones first
    cuts: Sequence[Sequence[Sequence[tuple[str, int]]]]  # [batches][passes][prompts]
    compare: bool  # whether any answer has to beat another one: the same for all passes, so one compiled program

    def units(self, j: int) -> Iterator[Unit]:
        """The passes that score edit batch j, each packed when it is asked for."""
        return (Unit(self._pack(j, sources), tuple(sources)) for sources in self.cuts[j])

    def passes(self) -> list[tuple[int, PackShape]]:
        """(tokens, shape) of every part of every pass."""
        chosen = [_chosen(self.items, j, sources) for j, passes in enumerate(self.cuts) for sources in passes]
        return [one for items in chosen for one in measured(items, self.shapes, _TOKEN_RULE, self.plan.parts)]

    def _pack(self, j: int, sources: Sequence[tuple[str, int]]) -> Batch:
        items = _chosen(self.items, j, sources)
        return pack_parts(items, len(sources), _TOKEN_RULE, self.shapes, self.plan.parts, compare=self.compare)


def plan_scoring(plan: EditPlan, max_tokens: int, *, roomy: bool = False) -> ScorePlan:
    """Cuts each edit batch's prompts into even passes of at most `max_tokens` tokens a part.

    `roomy`: in a shape that other plans of like size have too.
    """
    items = {kind: [contest(pool, plan.batch_size) for pool in plan.items[kind]] for kind in KINDS}
    cuts = [_cut(items, j, max_tokens * plan.parts) for j in range(len(plan))]
    passes = [_chosen(items, j, sources) for j, passes in enumerate(cuts) for sources in passes]
    parts = dealt(passes, plan.parts)
    shapes = (roomy_shape(parts, _TOKEN_RULE),) if roomy else plan_shapes(parts, _TOKEN_RULE)
    compare = any(item.versus for pools in items.values() for pool in pools for item in pool)
    return ScorePlan(plan, items, shapes, cuts, compare)


def contest(items: Sequence[TokenItem], micro_batch_size: int) -> list[TokenItem]:
    """One kind's prompts of an edit batch with `versus` as long as their labels: a token for each label to beat.

    The published program pads both answers of a micro-batch, each behind its prompt, to the widest of their sort, and
    cuts both to the narrower width. Labels behind the cut are not scored, so they are dropped here with the tokens
    that only they need. Labels behind the end of the other answer are compared with its padding, a real token. Items
    without `versus` are left as they are.
    """
    found = list(items)
    order = sorted_order(items).tolist()
    for start in range(0, len(order), micro_batch_size):
        rivals = [m for m in order[start : start + micro_batch_size] if items[m].versus]
        width = min(
            max((len(items[m].tokens) for m in rivals), default=0),
            max((items[m].answer_start + len(items[m].versus) for m in rivals), default=0),
        )
        for m in rivals:
            found[m] = _cut_to(items[m], width)
    return found


def _cut_to(item: TokenItem, width: int) -> TokenItem:
    """The item with the labels in the first `width` columns, of which the first label is one, and `versus` for each."""
    end = min(len(item.tokens), width)
    count = end - item.answer_start
    versus = (*item.versus[:count], *[_PADDING] * (count - len(item.versus)))
    return TokenItem(item.tokens[:end], item.labels[:count], item.prompt_len, versus)


def _chosen(items: Items, j: int, sources: Sequence[tuple[str, int]]) -> list[TokenItem]:
    return [items[kind][j][place] for kind, place in sources]


def _cut(items: Items, j: int, max_tokens: int) -> list[list[tuple[str, int]]]:
    sources = [(kind, place) for kind in KINDS for place in range(len(items[kind][j]))]
    lengths = [len(items[kind][j][place].tokens) for kind, place in sources]
    return [[sources[m] for m in places] for places in cut_evenly(lengths, max_tokens)]
