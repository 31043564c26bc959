"""Prompts and answers -> token ids with labels, in bulk, and the token rules that pick the captured rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from emsedit_jax.data.cues import Cue
from emsedit_jax.data.faults import SKIP, Fault, report
from emsedit_jax.data.fields import RowFault
from emsedit_jax.errors import InputError, near

Tokenizer = Callable[..., Mapping[str, Any]]  # a Hugging Face tokenizer, called on a list of texts

TOKEN_RULES = ("ans", "all", "ans_interval", "all_interval")


class TokenItem(NamedTuple):
    """A prompt followed by its answer without the last token.

    `labels[m]` is the token to be predicted at position `prompt_len - 1 + m`: nothing is shifted later. There is at
    least one label, and `len(tokens) == prompt_len + len(labels) - 1`.
    """

    tokens: tuple[int, ...]
    labels: tuple[int, ...]
    prompt_len: int
    versus: tuple[int, ...] = ()  # the answer to be beaten, of whatever length; none: the labels have to be likeliest

    @property
    def answer_start(self) -> int:
        """Position of the first label: the prompt's last token."""
        return self.prompt_len - 1

    @property
    def ids(self) -> tuple[int, ...]:
        """Every token id in it."""
        return (*self.tokens, *self.labels, *self.versus)


def tokenize(
    cues: Sequence[Cue], sources: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int | None = None
) -> list[TokenItem]:
    """Tokenises prompts (with special tokens) and " " + answers (without), apart, each in one call.

    Args:
      cues: what to tokenise.
      sources: where each comes from, for messages.
      tokenizer: called as a Hugging Face tokenizer.
      max_tokens: the longest prompt with answer that the model takes.

    Raises: InputError if a prompt or an answer tokenises to nothing, or a prompt and an answer to it are too long.
    """
    items = attempt(cues, tokenizer, max_tokens=max_tokens)
    faults = [Fault(source, str(one)) for source, one in zip(sources, items, strict=True) if isinstance(one, RowFault)]
    refuse(faults, can_skip=False)
    return [item for item in items if isinstance(item, TokenItem)]


def refuse(faults: Sequence[Fault], can_skip: bool) -> None:
    """Raises: InputError if there are any faults; `can_skip`: bad rows can be left out by a flag."""
    if faults:
        skip = f", or leave them out with {SKIP}" if can_skip else ""
        raise InputError(f"{report(faults)}. Correct these rows{skip}.")


def attempt(
    cues: Sequence[Cue], tokenizer: Tokenizer, *, max_tokens: int | None = None
) -> Sequence[TokenItem | RowFault]:
    """As `tokenize`, but what cannot be used stands among the others as the fault that says why."""
    if not cues:
        return []
    asked = tokenizer([cue.prompt for cue in cues], return_special_tokens_mask=True, return_attention_mask=False)
    answers = _answers([cue.answer for cue in cues], tokenizer)
    rivals = iter(_answers([cue.versus for cue in cues if cue.versus is not None], tokenizer))
    found: list[TokenItem | RowFault] = []
    columns = zip(cues, asked["input_ids"], asked["special_tokens_mask"], answers, strict=True)
    for cue, prompt_ids, special, answer_ids in columns:
        versus_ids = () if cue.versus is None else tuple(next(rivals))
        length, versus_length = (len(prompt_ids) + len(ids) - 1 for ids in (answer_ids, versus_ids))
        if all(special):
            found.append(RowFault(f"the prompt {cue.prompt!r} tokenises to nothing"))
        elif not answer_ids:
            found.append(RowFault(f"the answer {cue.answer!r} tokenises to nothing"))
        elif cue.versus is not None and not versus_ids:
            found.append(RowFault(f"the answer to be beaten {cue.versus!r} tokenises to nothing"))
        elif max_tokens is not None and length > max_tokens:
            found.append(RowFault(f"prompt and answer take {length} tokens, the model takes {max_tokens}"))
        elif max_tokens is not None and versus_length > max_tokens:  # scores of whole answers read it, too
            too_long = f"take {versus_length} tokens, the model takes {max_tokens}"
            found.append(RowFault(f"prompt and the answer to be beaten {too_long}"))
        else:
            found.append(TokenItem((*prompt_ids, *answer_ids[:-1]), tuple(answer_ids), len(prompt_ids), versus_ids))
    return found


def _answers(answers: Sequence[str], tokenizer: Tokenizer) -> Sequence[Sequence[int]]:
    """Ids of answers as they follow a prompt; the tokenizer is not called for none."""
    texts = [" " + answer for answer in answers]
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []


def check_token_rule(rule: str) -> None:
    """Raises: InputError if there is no such token rule."""
    if rule not in TOKEN_RULES:
        raise InputError(f"There is no token rule '{rule}'.{near(rule, TOKEN_RULES)} Known: {', '.join(TOKEN_RULES)}.")


def captured_positions(item: TokenItem, rule: str) -> Int[np.ndarray, " positions"]:
    """Positions inside the prompt whose keys and value gradients are taken, left to right.

    `ans`: the labelled ones. `all`: every one. `ans_interval`, `all_interval`: those of the former in even columns,
    counted from 0 at the prompt's left (the column counts, not the rank within the answer).

    >>> item = TokenItem(tokens=(7, 8, 9, 1, 2), labels=(1, 2, 3), prompt_len=3)
    >>> {rule: captured_positions(item, rule).tolist() for rule in TOKEN_RULES}
    {'ans': [2, 3, 4], 'all': [0, 1, 2, 3, 4], 'ans_interval': [2, 4], 'all_interval': [0, 2, 4]}

    Raises: InputError if there is no such rule.
    """
    check_token_rule(rule)
    positions = np.arange(item.answer_start if rule.startswith("ans") else 0, len(item.tokens))
    return positions[positions % 2 == 0] if rule.endswith("_interval") else positions
