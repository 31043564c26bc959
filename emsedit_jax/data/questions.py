"""Further questions to a model: prompts with answers, or windows of running text, packed into passes of one shape.

What a run scores beside the published scores is asked this way. It belongs to no edit batch, so that passes are cut
freely, prompts of like length together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from emsedit_jax.data.packing import PackShape, sorted_order
from emsedit_jax.data.parts import dealt, pack_parts
from emsedit_jax.data.shapes import cut_evenly, plan_shape
from emsedit_jax.data.tokens import TokenItem, Tokenizer
from emsedit_jax.types import Batch

_TOKEN_RULE = "ans"  # nothing is captured; answer rows are what is read


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionPlan:
    """Tokenised questions, cut into passes; packed when asked for."""

    items: Sequence[TokenItem]
    shape: PackShape
    cuts: Sequence[Sequence[int]]  # [passes][prompts]: places in `items`
    parts: int = 1  # of every pass, one a device that it is spread over

    def __len__(self) -> int:
        return len(self.cuts)

    def units(self) -> Iterator[tuple[Batch, Sequence[int]]]:
        """(pass, places of its prompts); `Batch.item_a` counts inside the pass."""
        for places in self.cuts:
            chosen = [self.items[m] for m in places]
            yield pack_parts(chosen, max(len(places), 1), _TOKEN_RULE, (self.shape,), self.parts), places


def plan_items(items: Sequence[TokenItem], max_tokens: int, parts: int = 1) -> QuestionPlan:
    """Cuts prompts, longest first, into even passes of one shape, in parts of at most about `max_tokens` tokens."""
    order = sorted_order(items).tolist()
    lengths = [len(items[m].tokens) for m in order]
    return planned(items, [[order[m] for m in places] for places in cut_evenly(lengths, max_tokens * parts)], parts)


def planned(items: Sequence[TokenItem], cuts: Sequence[Sequence[int]], parts: int) -> QuestionPlan:
    """The passes with these prompts, in one shape."""
    passes = [[items[m] for m in places] for places in cuts]
    return QuestionPlan(items, plan_shape(dealt(passes, parts), _TOKEN_RULE), cuts, parts)


def windows(text: str, tokenizer: Tokenizer, length: int) -> list[TokenItem]:
    """Running text in windows of so many tokens, each behind the special tokens that a model expects in front (BOS).

    Those count as part of a window. All of its text is to be predicted, but where nothing is in front the first token,
    which nothing is known of. The rest that fills no window is left out, unless it is all there is.
    """
    found = tokenizer([text], return_special_tokens_mask=True, return_attention_mask=False)
    own = [place for place, special in enumerate(found["special_tokens_mask"][0]) if not special]
    if not own:
        return []
    front, end = own[0], own[-1] + 1  # an end-of-text token behind it is left out
    step, given = max(length - front, 1), max(front, 1)
    starts = range(front, max(end - step, front) + 1, step)
    ids = found["input_ids"][0]
    pieces = [(*ids[:front], *ids[start : min(start + step, end)]) for start in starts]
    return [TokenItem(one[:-1], one[given:], given) for one in pieces if len(one) > given]
