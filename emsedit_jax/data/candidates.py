"""Several answers that might follow a prompt, packed into passes: answers of one token share a pass over the prompt.

Letters: q token sequences, w tokens that are read behind one of them, c choices, x answers of a choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from emsedit_jax.data.cues import Cue
from emsedit_jax.data.packing import first_fit, sorted_order
from emsedit_jax.data.questions import QuestionPlan, planned
from emsedit_jax.data.tokens import TokenItem, Tokenizer, tokenize
from emsedit_jax.types import Batch

_WIDE = 128  # tokens of a row, unless a prompt is longer
_OWN = -1  # in `words_qw`: the sequence's own label is read
NONE = -1  # in `sequence_cx`: the choice has no such answer


class Choice(NamedTuple):
    """A prompt and the answers that might follow it (without the space between them), in any number."""

    prompt: str
    answers: tuple[str, ...]


class Pass(NamedTuple):
    """One pass, and what is read in it."""

    batch: Batch
    sequence_a: Int[np.ndarray, " a"]  # which sequence each answer row belongs to; NONE where unused
    words_aw: Int[np.ndarray, "a w"]  # tokens that are read there, int32; 0 where unused


@dataclasses.dataclass(frozen=True, eq=False)
class CandidatePlan:
    """Tokenised choices, cut into passes; packed when asked for."""

    questions: QuestionPlan  # q sequences: a prompt with an answer, or bare with answers of one token
    words_qw: Int[np.ndarray, "q w"]
    sequence_cx: Int[np.ndarray, "c x"]  # the sequence that tells how likely an answer is; NONE where there is none
    word_cx: Int[np.ndarray, "c x"]  # its place among the words of that sequence
    tokens_cx: Int[np.ndarray, "c x"]  # of each answer; 0 where there is none

    def __len__(self) -> int:
        return len(self.questions)

    def units(self) -> Iterator[Pass]:
        """The passes, one after the other."""
        for batch, places in self.questions.units():
            item_a, labels_a = np.asarray(batch.item_a), np.asarray(batch.labels_a)
            sequence_a = np.where(item_a >= 0, np.asarray(places)[item_a], NONE)
            words_aw = self.words_qw[sequence_a]
            words_aw = np.where(words_aw == _OWN, labels_a[:, None], words_aw)
            yield Pass(batch, sequence_a, np.where(item_a[:, None] >= 0, words_aw, 0).astype(np.int32))


def plan_choices(
    choices: Sequence[Choice],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    longest: int | None,
    sources: Sequence[str] = (),
    parts: int = 1,
) -> CandidatePlan:
    """Tokenises choices and cuts them into passes, in parts of at most about `max_tokens` tokens.

    Args:
      longest: the longest prompt with answer that the model takes.
      sources: where each choice comes from, for messages.

    Raises: InputError for prompts and answers that tokenise to nothing, or are too long.
    """
    return plan_candidates(tokenize_choices(choices, tokenizer, longest=longest, sources=sources), max_tokens, parts)


def tokenize_choices(
    choices: Sequence[Choice], tokenizer: Tokenizer, *, longest: int | None, sources: Sequence[str] = ()
) -> list[list[TokenItem]]:
    """Each choice's prompt with each of its answers, as `tokenize` has them. Raises: InputError as there."""
    named = sources or [f"choice {m}" for m in range(len(choices))]
    cues = [Cue(one.prompt, answer) for one in choices for answer in one.answers]
    owners = [source for one, source in zip(choices, named, strict=True) for _ in one.answers]
    items = iter(tokenize(cues, owners, tokenizer, max_tokens=longest))
    return [[next(items) for _ in one.answers] for one in choices]


def plan_candidates(candidates: Sequence[Sequence[TokenItem]], max_tokens: int, parts: int = 1) -> CandidatePlan:
    """Cuts the candidates of each choice, which share a prompt, into passes in parts of about `max_tokens` tokens."""
    sequences: list[TokenItem] = []
    words: list[list[int]] = []  # of each sequence
    found = np.full((3, len(candidates), max(map(len, candidates), default=0)), NONE, np.int64)
    found[2] = 0
    for m, items in enumerate(candidates):
        if items:
            found[:2, m, : len(items)] = np.transpose(_add(items, sequences, words))
            found[2, m, : len(items)] = [len(item.labels) for item in items]
    words_qw = np.full((len(words), max(map(len, words), default=1)), _OWN, np.int64)
    for row, tokens in zip(words_qw, words, strict=True):
        row[: len(tokens)] = tokens
    cuts = _cut(sequences, max_tokens * parts)
    return CandidatePlan(planned(sequences, cuts, parts), words_qw, *found)


def _cut(sequences: Sequence[TokenItem], max_tokens: int) -> list[list[int]]:
    """Places of the sequences of each pass, which is filled row by row: short prompts lie beside long ones.

    Few prompts are as long as the longest, which sets the width of all rows.
    """
    order = sorted_order(sequences)
    lengths = [len(sequences[q].tokens) for q in order]
    t = max(max(lengths, default=1), min(max_tokens, _WIDE))
    passes = first_fit(lengths, t).row // max(round(max_tokens / t), 1)
    return [order[passes == number].tolist() for number in range(int(passes.max(initial=-1)) + 1)]


def _add(items: Sequence[TokenItem], sequences: list[TokenItem], words: list[list[int]]) -> list[tuple[int, int]]:
    """Adds what has to be read for one choice; (sequence, place among its words) of each answer."""
    found: list[tuple[int, int]] = []
    bare: int | None = None
    for item in items:
        if len(item.labels) > 1:
            sequences.append(item)
            words.append([_OWN])
            found.append((len(sequences) - 1, 0))
            continue
        if bare is None:
            sequences.append(item)
            words.append([])
            bare = len(sequences) - 1
        words[bare].append(item.labels[0])
        found.append((bare, len(words[bare]) - 1))
    return found
