"""What a model says by itself: greedy answers up to their natural stop, and longer text for its fluency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emsedit_jax.lm import generate
from emsedit_jax.lm.generate import GREEDY, ROWS, Sampling
from emsedit_jax.measure.edited import Edited

FLUENCY = Sampling(temperature=1.0, top_k=5)  # as ROME and MEMIT draw the text whose entropy they measure


def lines(
    model: Edited,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    begun: Callable[[], None] = lambda: None,
) -> list[str]:
    """The greedy answer to each prompt: up to the end of its first line, or of the text, or so many tokens."""
    said = _passes(model, tokenizer, prompts, max_new_tokens, GREEDY, begun)
    return [text.strip().split("\n")[0].strip() for text in said]


def texts(
    model: Edited,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    begun: Callable[[], None] = lambda: None,
) -> list[str]:
    """Each prompt with a continuation at length, drawn with one seed, the same before and after an edit."""
    said = _passes(model, tokenizer, prompts, max_new_tokens, FLUENCY, begun)
    return [prompt + more for prompt, more in zip(prompts, said, strict=True)]


def passes(count: int) -> int:
    """How many passes so many prompts take."""
    return -(-count // ROWS)


def _passes(
    model: Edited,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    sampling: Sampling,
    begun: Callable[[], None],
) -> list[str]:
    """Continuations, prompts of like length together; the last pass is filled up, so that it compiles nothing anew."""
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    found = [""] * len(prompts)
    rows = min(ROWS, len(prompts))
    for start in range(0, len(prompts), ROWS):
        begun()
        places = order[start : start + rows].tolist()
        filled = places + [places[-1]] * (rows - len(places))
        said = generate.continuations(
            model.config,
            model.params,
            tokenizer,
            [prompts[m] for m in filled],
            max_new_tokens,
            model.sites,
            model.deltas,
            must_speak=True,  # a chat model may end at once after a bare question
            sampling=sampling,
        )
        for m, text in zip(places, said, strict=False):
            found[m] = text
    return found
