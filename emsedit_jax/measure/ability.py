"""General ability under edits: of an item's label words the likeliest is the answer (`docs/SCORES.md`)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from emsedit_jax.data.ability import AbilityPlan, TaskPlan
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.likelihood import likelihoods
from emsedit_jax.measure.passes import Passes
from emsedit_jax.measure.scores import Score

NO_ANSWER = -1  # where a likelihood is not finite, or two are the largest: always wrong


def ability(model: Edited, plan: AbilityPlan, key: str, passes: Passes | None = None) -> dict[str, Score]:
    """`sst2.accuracy`, `sst2.f1`, `sst2.mcc` and so on under the edits; the store knows the plan as `key`.

    The answer is the word with the largest mean log-probability a token. `passes`: to go on behind.
    """
    per_token = likelihoods(model, plan.candidates, key, passes).per_token
    scores: dict[str, Score] = {}
    for name, task in plan.tasks.items():
        end = task.start + len(task.labels)
        for metric, score in graded(task, answers(per_token[task.start : end, : task.words])).items():
            scores[f"{name}.{metric}"] = score
    return scores


def answers(per_token: Float[np.ndarray, "items words"]) -> Int[np.ndarray, " items"]:
    """The place of each item's likeliest word; `NO_ANSWER` where there is not the one."""
    largest = np.max(per_token, axis=1, keepdims=True)
    clear = np.isfinite(per_token).all(axis=1) & (np.sum(per_token == largest, axis=1) == 1)
    return np.where(clear, np.argmax(per_token, axis=1), NO_ANSWER)


def graded(task: TaskPlan, said: Int[np.ndarray, " items"]) -> dict[str, Score]:
    """The scores of a task's answers, by metric."""
    right = (task.labels == said).astype(np.float64)
    pairs = np.stack([task.labels, said], axis=1).astype(np.float64)
    values = {"accuracy": right, "f1": pairs, "mcc": pairs}
    return {metric: Score(found, task.sources) for metric, found in values.items()}
