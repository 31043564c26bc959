"""Facts read by several processes: each tokenises a slice of the texts, and all get the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int

from emsedit_jax.data.tokens import Tokenizer

LISTS = ("input_ids", "special_tokens_mask")  # what a tokenizer gives for each text


def shared(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, with its work divided among the processes, which must all call it alike; itself for one."""
    count = jax.process_count()
    if count == 1:
        return tokenizer

    def tokenize(texts: Sequence[str], **asked: Any) -> Mapping[str, Any]:
        if len(texts) < count:
            return tokenizer(texts, **asked)
        found = tokenizer(texts[own(len(texts), count, jax.process_index())], **asked)
        return {name: unpacked(gathered(packed(found[name]))) for name in LISTS if name in found}

    return tokenize


def own(length: int, count: int, index: int) -> slice:
    """Which of so many things are those of process `index` among `count`; they follow each other."""
    return slice(length * index // count, length * (index + 1) // count)


def packed(rows: Sequence[Sequence[int]]) -> Int[np.ndarray, " length"]:
    """Rows of any lengths in one vector: each one's length, then the row."""
    return np.fromiter((number for row in rows for number in (len(row), *row)), np.int32)


def unpacked(vectors: Sequence[Int[np.ndarray, " _length"]]) -> list[list[int]]:
    """The rows of all vectors."""
    rows = []
    for vector in vectors:
        numbers, at = vector.tolist(), 0
        while at < len(numbers):
            length = numbers[at]
            rows.append(numbers[at + 1 : at + 1 + length])
            at += 1 + length
    return rows


def gathered(vector: Int[np.ndarray, " length"]) -> list[Int[np.ndarray, " _length"]]:
    """Every process's vector, in all of them, as int32."""
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(vector.size)))
    padded = np.zeros(lengths.max(), np.int32)
    padded[: vector.size] = vector
    return [row[:length] for row, length in zip(multihost_utils.process_allgather(padded), lengths, strict=True)]
