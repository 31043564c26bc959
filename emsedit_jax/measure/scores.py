"""What a run measures: a score is a value for each item, and a name that says how they add up and in which unit.

Names: `ES`, `GS` and `LS` are the published scores of edited, equivalent and unrelated prompts (METHODS section 7).
`KIND.WHAT` is a further look at the same prompts (`ES.exact`), `asks.CRITERION` a data set's own further questions,
`TASK.METRIC` general ability (`rte.f1`); `fluency` and `perplexity` stand alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from emsedit_jax.measure.labels import matthews, matthews_drawn, weighted_f1, weighted_f1_drawn

NAMES = {"edit": "ES", "equiv": "GS", "unrel": "LS"}  # kind of prompt -> name of its score
PUBLISHED = tuple(NAMES.values())

Values = Float[np.ndarray, " items"] | Float[np.ndarray, "items 2"]


class Score(NamedTuple):
    """A value for each item, or a pair of them."""

    values: Values  # [items, 2] are (right label, answer), numbers from 0, of totals that are no mean; -1: no answer
    items: tuple[str, ...]  # what each belongs to, such as "zsre_eval.json row 3"; the same in every run on that row


Scores = Mapping[str, Score]  # by name


class Measure(NamedTuple):
    """How a score is read."""

    words: str  # for people
    unit: str
    better: int  # 1: more is better; -1: less is; 0: neither
    total: Callable[[Values], float]  # of all items
    drawn: Callable[[Values], float] | None = None  # of pairs: the same as `total`, fast, for many draws of items

    @property
    def of_mean(self) -> bool:
        """Whether the total rises with the mean of values [items]; otherwise values are pairs."""
        return self.drawn is None


def _percent(values: Float[np.ndarray, " items"]) -> float:
    return 100 * _mean(values)


def _mean(values: Float[np.ndarray, " items"]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _perplexity(values: Float[np.ndarray, " items"]) -> float:
    with np.errstate(over="ignore"):  # infinite is what it is then
        return float(np.exp(_mean(values)))


_PROMPTS = {"ES": "edited prompts", "GS": "other wordings", "LS": "unrelated facts"}
_LOOKS = {  # what stands behind "ES.", "GS." or "LS."
    "first": Measure("{}, first tenth of the edits", "%", 1, _percent),
    "middle": Measure("{}, middle tenth of the edits", "%", 1, _percent),
    "last": Measure("{}, last tenth of the edits", "%", 1, _percent),
    "exact": Measure("{}: what is said is the answer", "%", 1, _percent),
    "contained": Measure("{}: the answer is in what is said", "%", 1, _percent),
    "likelier": Measure("{}: the answer is likelier than the other one", "%", 1, _percent),
    "margin": Measure("{}: probability of the answer, less the other one's", "points", 1, _percent),
    "same": Measure("{}: the likeliest token is the unedited model's", "%", 1, _percent),
    "kl": Measure("{}: KL divergence from the unedited model, a token", "nats", -1, _mean),
}
_ALONE = {
    "fluency": Measure("entropy of 2-grams and 3-grams in what is said", "bits", 0, _mean),
    "perplexity": Measure("perplexity of running text", "", -1, _perplexity),
}
_ABILITY = {
    "accuracy": Measure("{}: accuracy", "%", 1, _percent),
    "f1": Measure("{}: F1, labels weighted by their number", "%", 1, weighted_f1, weighted_f1_drawn),
    "mcc": Measure("{}: Matthews correlation", "", 1, matthews, matthews_drawn),
}


def measure(name: str) -> Measure:
    """How the score of that name is read. Raises: KeyError for a name that no score has."""
    head, _, tail = name.partition(".")
    if not tail:
        return _ALONE[name] if name in _ALONE else Measure(_PROMPTS[name], "%", 1, _percent)
    if head in _PROMPTS:
        return _named(_LOOKS[tail], _PROMPTS[head])
    if head == "asks":
        return Measure(tail.replace("_", " "), "%", 1, _percent)
    return _named(_ABILITY[tail], head)


def _named(found: Measure, what: str) -> Measure:
    return found._replace(words=found.words.format(what))


def totals(scores: Scores) -> dict[str, float]:
    """Each score as one number."""
    return {name: measure(name).total(score.values) for name, score in scores.items()}
