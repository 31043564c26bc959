"""What a model says by itself: greedy answers up to their natural stop, and longer text for its fluency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emsedit_jax.lm import generate
from emsedit_jax.lm.generate import GREEDY, ROWS, Sampling
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.passes import Passes

FLUENCY = Sampling(temperature=1.0, top_k=5)  # as ROME and MEMIT draw the text whose entropy they measure


def lines(
    model: Edited, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, passes: Passes | None = None
) -> list[str]:
    """The greedy answer to each prompt: up to the end of its first line, or of the text, or so many tokens.

    `passes`: to go on behind.
    """
    said = _said(model, tokenizer, prompts, max_new_tokens, GREEDY, passes or Passes())
    return [text.strip().split("\n")[0].strip() for text in said]


def texts(
    model: Edited, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, passes: Passes | None = None
) -> list[str]:
    """Each prompt with a continuation at length, drawn with one seed, the same before and after an edit.

    `passes`: to go on behind.
    """
    said = _said(model, tokenizer, prompts, max_new_tokens, FLUENCY, passes or Passes())
    return [prompt + more for prompt, more in zip(prompts, said, strict=True)]


def cut(prompts: Sequence[str]) -> list[list[int]]:
    """The places of each pass's prompts, those of like length together."""
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable").tolist()
    return [order[start : start + ROWS] for start in range(0, len(prompts), ROWS)]


def _said(
    model: Edited,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    sampling: Sampling,
    passes: Passes,
) -> list[str]:
    """Continuations; the last pass is filled up, so that it compiles nothing anew."""
    cuts, rows = cut(prompts), min(ROWS, len(prompts))
    for places in cuts[len(passes.found) :]:
        passes.begun()
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
        passes.add(said[: len(places)])
    found = [""] * len(prompts)
    for places, texts_of in zip(cuts, passes.found, strict=True):
        for m, text in zip(places, texts_of, strict=True):
            found[m] = text
    return found
