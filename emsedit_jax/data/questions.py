"""Further questions to a model: prompts with answers, or windows of running text, packed into passes of one shape.

What a run scores beside the published scores is asked this way. It belongs to no edit batch, so that passes are cut
freely, prompts of like length together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from emsedit_jax.data.packing import PackShape, pack, plan_shape, sorted_order
from emsedit_jax.data.readers import Cue
from emsedit_jax.data.tokens import TokenItem, Tokenizer, tokenize
from emsedit_jax.types import Batch

_TOKEN_RULE = "ans"  # nothing is captured; answer rows are what is read


class Question(NamedTuple):
    """A prompt and what should follow it (without the space between them)."""

    prompt: str
    answer: str


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionPlan:
    """Tokenised questions, cut into passes; packed when asked for."""

    items: Sequence[TokenItem]
    shape: PackShape
    cuts: Sequence[Sequence[int]]  # [passes][prompts]: places in `items`

    def __len__(self) -> int:
        return len(self.cuts)

    def units(self) -> Iterator[tuple[Batch, Sequence[int]]]:
        """(pass, places of its prompts); `Batch.item_a` counts inside the pass."""
        for places in self.cuts:
            yield pack([self.items[m] for m in places], max(len(places), 1), _TOKEN_RULE, self.shape), places


def plan_questions(
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    longest: int | None,
    sources: Sequence[str] = (),
) -> QuestionPlan:
    """Tokenises questions and cuts them into passes of at most about `max_tokens` tokens.

    Args:
      longest: the longest prompt with answer that the model takes.
      sources: where each comes from, for messages.

    Raises: InputError for questions that tokenise to nothing, or are too long.
    """
    named = sources or [f"question {m}" for m in range(len(questions))]
    cues = [Cue(one.prompt, one.answer) for one in questions]
    return plan_items(tokenize(cues, named, tokenizer, max_tokens=longest), max_tokens)


def plan_items(items: Sequence[TokenItem], max_tokens: int) -> QuestionPlan:
    """Cuts prompts, longest first, into passes of one shape and of at most about `max_tokens` tokens."""
    cuts: list[list[int]] = []
    held = max_tokens
    for m in sorted_order(items).tolist():
        length = len(items[m].tokens)
        if held + length > max_tokens:
            cuts.append([])
            held = 0
        cuts[-1].append(m)
        held += length
    shape = plan_shape([[items[m] for m in places] for places in cuts], _TOKEN_RULE)
    return QuestionPlan(items, shape, cuts)


def windows(text: str, tokenizer: Tokenizer, length: int) -> list[TokenItem]:
    """Running text in windows of so many tokens; each token of a window but the first is to be predicted.

    The rest that fills no window is left out, unless it is all there is.
    """
    ids = tokenizer([text], add_special_tokens=False, return_attention_mask=False)["input_ids"][0]
    starts = range(0, max(len(ids) - length, 0) + 1, length)
    pieces = [ids[start : start + length] for start in starts]
    return [TokenItem(tuple(piece[:-1]), tuple(piece[1:]), 1) for piece in pieces if len(piece) > 1]
