"""What an edit did, fact by fact, for a person: said before and after, other wordings, and what it broke nearby."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterator, Mapping, Sequence

from emsedit_jax.errors import spans

KINDS = {"ES": "the fact itself", "GS": "its other wordings", "LS": "facts nearby"}


@dataclasses.dataclass(frozen=True)
class Checked:
    """A prompt and its answer, with the share of the answer's tokens that are right before and after the edit."""

    prompt: str
    answer: str
    before: float
    after: float

    @property
    def broke(self) -> bool:
        """Right before and not after."""
        return self.before == 1 > self.after


@dataclasses.dataclass(frozen=True)
class FactReport:
    """One fact: asked as it was given, otherwise, and facts near it."""

    asked: Checked
    said_before: str  # the model's own words, up to the end of a line
    said_after: str
    paraphrases: tuple[Checked, ...]
    nearby: tuple[Checked, ...]  # what must stay as it is: the unrelated prompts given, and facts that are much alike

    @property
    def took(self) -> bool:
        """Whether every token of the new answer is the likeliest now."""
        return self.asked.after == 1

    def __str__(self) -> str:
        lines = [f"{self.asked.prompt}  -> {self.asked.answer}{'' if self.took else '   (did not take)'}"]
        lines += [f"  before  {self.said_before or '(nothing)'}", f"  after   {self.said_after or '(nothing)'}"]
        lines += [f"  not so asked: {one.prompt}" for one in self.paraphrases if one.after < 1]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class EditReport:
    """What one call of `edit` did."""

    batches: tuple[int, ...]  # their numbers, by which they are undone
    facts: tuple[FactReport, ...]
    seconds: float  # of the edit itself

    @property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Mean share of right answer tokens before and after, in percent; without those of which there are none.

        LS: of the prompts nearby that were right before.
        """
        return {name: _means(pool) for name in KINDS if (pool := self._pool(name))}

    def _pool(self, name: str) -> list[Checked]:
        """What a score is of."""
        if name == "ES":
            return [one.asked for one in self.facts]
        if name == "GS":
            return [each for one in self.facts for each in one.paraphrases]
        return [each for one in self.facts for each in one.nearby if each.before == 1]

    def _broken(self) -> Iterator[str]:
        return (f"{each.prompt} {each.answer}" for one in self.facts for each in one.nearby if each.broke)

    def __str__(self) -> str:
        lines = [str(one) for one in self.facts]
        lines += [f"broke: {words}" for words in dict.fromkeys(self._broken())]  # several facts may have it nearby
        for name, words in KINDS.items():
            if name in self.scores:
                before, after = self.scores[name]
                change = f"{before:.0f} % of the tokens right before, {after:.0f} % after"
                if name == "LS":
                    change = f"of {len(self._pool(name))} that were right before {after:.0f} % of the tokens still are"
                lines.append(f"{words}: {change}")
        words = "batch" if len(self.batches) == 1 else "batches"
        lines.append(f"{words} {spans(self.batches)}, written in {self.seconds:.1f} s")
        return "\n".join(lines)

    def rows(self) -> list[tuple[str, float, float]]:
        """(what, percent right before, after)."""
        return [(KINDS[name], *pair) for name, pair in self.scores.items()]

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        head = "".join(f"<th>{name}</th>" for name in ("prompt", "new answer", "said before", "said after", "broke"))
        body = "".join(_row(one) for one in self.facts)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclasses.dataclass(frozen=True)
class ScoreReport:
    """Mean share of right answer tokens, in percent: of the model as it was, and under the edits."""

    unedited: Mapping[str, float]
    edited: Mapping[str, float]
    facts: int

    def __str__(self) -> str:
        lines = [f"{self.facts} facts, answer tokens right, %"]
        for name, words in (KINDS | {"LS": "unrelated prompts"}).items():
            if name in self.edited:
                lines.append(f"{name}  {words:<20} {self.unedited[name]:5.1f} -> {self.edited[name]:5.1f}")
        return "\n".join(lines)


def _means(pool: Sequence[Checked]) -> tuple[float, float]:
    def percent(of: Callable[[Checked], float]) -> float:
        return 100 * sum(map(of, pool)) / len(pool)

    return percent(lambda one: one.before), percent(lambda one: one.after)


def _row(one: FactReport) -> str:
    broke = "; ".join(f"{each.prompt} {each.answer}" for each in one.nearby if each.broke)
    answer = one.asked.answer if one.took else f"{one.asked.answer} (did not take)"
    cells = (one.asked.prompt, answer, one.said_before, one.said_after, broke)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
