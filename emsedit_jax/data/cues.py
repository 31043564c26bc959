"""What the data room hands around: prompts with their answers, and the facts of one row of a file.

Texts are as the file has them, leading and trailing spaces included. An answer is tokenised behind one space that is
added to it, so an answer that begins with a space of its own follows two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Role = Literal["train", "eval"]
Draw = Callable[[int], int]  # draw(n): a place from 0 to n - 1, drawn for the row


@dataclass(frozen=True)
class Cue:
    """A prompt and the answer that should follow it (without the space between them)."""

    prompt: str
    answer: str
    versus: str | None = None  # the answer that it has to beat; None: any other token (METHODS section 7)


class Asked(NamedTuple):
    """A further question about a fact."""

    criterion: str
    prompt: str
    answers: tuple[str, ...]  # any one of them is right


class Cues(NamedTuple):
    """One fact as a reader takes it from a row; `records.read` adds where it comes from."""

    edit: Cue
    equiv: tuple[Cue, ...]
    unrel: tuple[Cue, ...]
    subject: str  # "" where the data set names none
    asked: tuple[Asked, ...] = ()
    borrowed: tuple[str, ...] = ()  # kinds ("equiv", "unrel") that the edit stands in for: the row has none


@dataclass(frozen=True)
class EditRecord:
    """One fact to write: how it is asked, how else it may be asked, and what must not move."""

    edit: Cue
    equiv: tuple[Cue, ...]
    unrel: tuple[Cue, ...]
    subject: str
    source: str  # "zsre_eval.json row 12", or "mquake.json row 12 fact 1" where a row has several; for messages
    asked: tuple[Asked, ...] = ()  # a row's questions hang on its last fact
    borrowed: tuple[str, ...] = ()
    parts: int = 1  # facts of its row

    @property
    def row(self) -> str:
        """The row alone, which several facts may share: `"mquake.json row 12"`."""
        return self.source.rpartition(" fact ")[0] if self.parts > 1 else self.source

    def cues(self, kind: str) -> tuple[Cue, ...]:
        """Its prompts of a kind: "edit", "equiv" or "unrel"."""
        return {"edit": (self.edit,), "equiv": self.equiv, "unrel": self.unrel}[kind]

    def item_names(self, kind: str) -> tuple[str, ...]:
        """What its prompts of a kind are called in scores: the fact, with ` #0`, ` #1`, ... where it has several."""
        count = len(self.cues(kind))
        return (self.source,) if count == 1 else tuple(f"{self.source} #{m}" for m in range(count))
