"""What a model said, as text: whether it holds the answer, and whether it still speaks rather than repeats itself."""

from __future__ import annotations

import collections
import math
import re
import unicodedata
from collections.abc import Sequence

_ARTICLES = ("a", "an", "the")
_MINUS = "-\u2212\u2013"  # also typed as an en dash
_BEFORE_MINUS = "\"'*_`=:<>|~\u2248"  # besides spaces, brackets and currencies: quotes, Markdown, comparisons


def exact(said: str, answers: Sequence[str]) -> bool:
    """Whether `said` is one of the answers, but for case, articles, spaces and the punctuation that `plain` drops."""
    return bool(plain(said)) and plain(said) in [plain(answer) for answer in answers]


def contained(said: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in `said` as whole words.

    An answer in a script without spaces, or in Hangul, where particles follow a word, may stand anywhere; one of
    symbols alone where neither a word nor more of its symbols touch it.
    """
    words, bare = _words(said), _folded(said)
    return any(_within(_words(one), words) if _words(one) else _apart(_folded(one), bare) for one in answers)


def plain(text: str) -> str:
    """The text for comparison: compatible characters and cases as one, without punctuation, articles, double spaces.

    What tells words apart is no punctuation: + and # behind a word (C++, C#), a minus before a number and currencies.
    Of a text that holds nothing else the punctuation stays.
    """
    return _words(text) or _folded(text)


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def _words(text: str) -> str:
    """As `plain`, but nothing of a text that is punctuation alone."""
    folded, kept = _folded(text), ""
    for place, letter in enumerate(folded):
        stays = _tells(letter) or (letter in "+#" and kept[-1:].strip())
        kept += letter if stays else "-" if _is_minus(folded, place) else " "
    words = kept.split()
    return " ".join(word for word in words if word not in _ARTICLES) or " ".join(words)


def _tells(letter: str) -> bool:
    """Whether it belongs to words: letters and their marks, digits, currencies; not what only picks an emoji's look."""
    category = unicodedata.category(letter)
    return (category[0] in "LMN" or category == "Sc") and not "\ufe00" <= letter <= "\ufe0f"


def _is_minus(text: str, place: int) -> bool:
    """Whether a minus before a number stands there, and no hyphen or dash."""
    before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 3]
    if after and unicodedata.category(after[0]) == "Sc":
        after = after[1:]
    if text[place] not in _MINUS or not after[:1].isdigit():
        return False
    return before.strip() in ("", *_BEFORE_MINUS) or unicodedata.category(before) in ("Ps", "Pi", "Sc")


def _apart(answer: str, said: str) -> bool:
    """Whether an answer of symbols stands in `said`, with no word and no more of its symbols at either end."""
    more = rf"[\w{re.escape(''.join(sorted(set(answer) - {' '})))}]"
    return bool(answer) and re.search(rf"(?<!{more}){re.escape(answer)}(?!{more})", said) is not None


def _within(answer: str, words: str) -> bool:
    if not answer:
        return False
    if any(_unspaced(letter) for letter in answer):
        return answer in words
    return re.search(rf"(?<!\S){re.escape(answer)}(?!\S)", words) is not None


def _unspaced(letter: str) -> bool:
    """Whether it belongs to a script whose words need not end at a space."""
    name = unicodedata.name(letter, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL"))


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
