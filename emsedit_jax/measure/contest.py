"""CounterFact as its authors score it: which of two answers is likelier as a whole, and by how much."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from emsedit_jax.data.candidates import CandidatePlan, Choice, plan_choices
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.data.tokens import Tokenizer
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.likelihood import likelihoods
from emsedit_jax.measure.passes import Passes
from emsedit_jax.measure.scores import NAMES, Score


@dataclasses.dataclass(frozen=True, eq=False)
class ContestPlan:
    """The prompts whose answer has another to beat, tokenised and cut into passes; kind after kind."""

    candidates: CandidatePlan  # of each prompt the answer, then the other one
    items: Mapping[str, tuple[str, ...]]  # kind -> what its prompts are called; without kinds that have none

    def __len__(self) -> int:
        return len(self.candidates)


def plan_contest(
    records: Sequence[EditRecord], tokenizer: Tokenizer, *, max_tokens: int, longest: int | None, parts: int = 1
) -> ContestPlan:
    """Tokenises every prompt that names an answer to be beaten; passes have parts of about `max_tokens` tokens.

    Args:
      longest: the longest prompt with answer that the model takes.

    Raises: InputError for prompts and answers that tokenise to nothing, or are too long.
    """
    found = {kind: [pair for record in records for pair in _rivals(record, kind)] for kind in NAMES}
    pairs = [pair for of_kind in found.values() for pair in of_kind]
    plan = plan_choices(
        [choice for _, choice in pairs],
        tokenizer,
        max_tokens=max_tokens,
        longest=longest,
        sources=[item for item, _ in pairs],
        parts=parts,
    )
    return ContestPlan(plan, {kind: tuple(item for item, _ in of_kind) for kind, of_kind in found.items() if of_kind})


def _rivals(record: EditRecord, kind: str) -> Iterator[tuple[str, Choice]]:
    """(item, its two answers) of the record's prompts of a kind."""
    for item, cue in zip(record.item_names(kind), record.cues(kind), strict=True):
        if cue.versus is not None:
            yield item, Choice(cue.prompt, (cue.answer, cue.versus))


def contest(model: Edited, plan: ContestPlan, key: str, passes: Passes | None = None) -> dict[str, Score]:
    """`ES.likelier`, `ES.margin` and so on under the edits; the store knows the plan as `key`.

    As in ROME and MEMIT an answer's probability P is that of a token, exp(mean log-probability of its tokens), so that
    a long answer may beat a short one. `likelier`: 1 where P(answer) > P(other), else 0, also for a tie and where one
    is not finite. `margin`: P(answer) - P(other). On edited and equivalent prompts the new answer has to win, on
    unrelated ones the true one. Two things are otherwise than there: a prompt and its answer are tokenised apart, here
    as everywhere in the package, and prompts are items of their own, not averaged fact by fact first.

    `passes`: to go on behind.
    """
    per_token = likelihoods(model, plan.candidates, key, passes).per_token
    scores: dict[str, Score] = {}
    start = 0
    for kind, items in plan.items.items():
        answer, other = per_token[start : start + len(items)].T
        finite = np.isfinite(answer) & np.isfinite(other)
        scores[f"{NAMES[kind]}.likelier"] = Score((finite & (answer > other)).astype(np.float64), items)
        scores[f"{NAMES[kind]}.margin"] = Score(np.exp(answer) - np.exp(other), items)
        start += len(items)
    return scores
