"""Facts near an edited one, from those that come with the package: what an edit may break without anybody asking."""

from __future__ import annotations

import collections
import functools
import hashlib
import math
import re
from collections.abc import Collection, Sequence

from emsedit_jax.data import embedded
from emsedit_jax.data.cues import Cue, EditRecord


def beside(
    record: EditRecord, count: int, edited: Sequence[EditRecord] = (), apart: Collection[str] = ()
) -> tuple[Cue, ...]:
    """So many questions that share the most words with the edited prompt, with their true answers, one an answer.

    None asks about what a fact in `edited` is about: its rarest word stands in none of their prompts. `apart`: prompts
    that are left out.
    """
    said = frozenset().union(*(_words(one.edit.prompt) for one in (record, *edited)))
    mine, found = _words(record.edit.prompt), []
    for cue, theirs in _known():
        if _rarest(theirs) not in said and cue.prompt not in apart:
            score = math.fsum(map(_rarity, mine & theirs)) / math.sqrt(len(theirs))
            found.append((-score, _spread(cue.prompt), cue))
    chosen: dict[str, Cue] = {}
    for score, _, cue in sorted(found, key=lambda one: one[:2]):
        if len(chosen) == count or not score:
            break
        chosen.setdefault(cue.answer, cue)
    return tuple(chosen.values())


@functools.cache
def _known() -> tuple[tuple[Cue, frozenset[str]], ...]:
    """All questions with their true answers, and their words."""
    found: dict[str, Cue] = {}
    for row in (row for split in embedded.SPLITS for row in embedded.rows(split)):
        for one in row["unrelated"]:
            found.setdefault(one["prompt"], Cue(one["prompt"], one["answer"]))
        for prompt in (row["prompt"], *row["paraphrases"]):
            found.setdefault(prompt, Cue(prompt, row["answer_true"]))
    return tuple((cue, _words(prompt)) for prompt, cue in found.items())


@functools.cache
def _rarity(word: str) -> float:
    """Words that many questions have tell little."""
    return math.log(len(_known()) / _counts()[word]) if word in _counts() else 0.0


@functools.cache
def _rarest(words: frozenset[str]) -> str:
    return max(words, key=lambda word: (_rarity(word), word))


@functools.cache
def _counts() -> collections.Counter[str]:
    return collections.Counter(word for _, words in _known() for word in words)


def _spread(text: str) -> bytes:
    """An order in which like questions do not come by their letters."""
    return hashlib.sha256(text.encode()).digest()


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))
