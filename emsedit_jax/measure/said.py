"""What a model said, as text: whether it holds the answer, and whether it still speaks rather than repeats itself."""

from __future__ import annotations

import collections
import math
import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = ("a", "an", "the")


def exact(said: str, answers: Sequence[str]) -> bool:
    """Whether `said` is one of the answers, but for case, articles, punctuation and spaces."""
    return bool(plain(said)) and plain(said) in [plain(answer) for answer in answers]


def contained(said: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in `said` as whole words (of a script without spaces: anywhere)."""
    words = plain(said)
    return any(_within(plain(answer), words) for answer in answers)


def plain(text: str) -> str:
    """The text for comparison: compatible characters and cases as one, without punctuation, articles, double spaces."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(" " if unicodedata.category(letter)[0] in "PSCZ" else letter for letter in text)
    words = kept.split()
    return " ".join(word for word in words if word not in _ARTICLES) or " ".join(words)


def _within(answer: str, words: str) -> bool:
    if not answer:
        return False
    if any(_unspaced(letter) for letter in answer):
        return answer in words
    return re.search(rf"(?<!\S){re.escape(answer)}(?!\S)", words) is not None


def _unspaced(letter: str) -> bool:
    """Whether it belongs to a script that puts no spaces between words."""
    name = unicodedata.name(letter, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))


def ngram_entropy(text: str) -> float:
    """Fluency as ROME and MEMIT measure it, in bits: the mean of the 2-grams' and 3-grams' entropies, at 2/3 and 4/3.

    Text that repeats itself has little; 0 for fewer than three words.
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], n: int) -> float:
    counts = collections.Counter(tuple(words[m : m + n]) for m in range(len(words) - n + 1))
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values()) + 0.0
