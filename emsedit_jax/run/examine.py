"""Asking the model what `exam` has chosen, and the scores that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.records import Cue, EditRecord
from emsedit_jax.measure import speech
from emsedit_jax.measure.ability import ability
from emsedit_jax.measure.ask import ask, drift
from emsedit_jax.measure.contest import contest
from emsedit_jax.measure.said import contained, exact, ngram_entropy
from emsedit_jax.measure.scores import NAMES, Score, Scores
from emsedit_jax.run import failures
from emsedit_jax.run.exam import Exam, Spoken
from emsedit_jax.run.facts import drawn
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.report import Example
from emsedit_jax.types import Deltas


class Examined(NamedTuple):
    """What came of it."""

    scores: Scores
    said: tuple[str, ...]  # to each of `Exam.spoken`


def examine(run: Prepared, exam: Exam, deltas: Deltas, *, edited: bool, begun: Callable[[], None]) -> Examined:
    """Puts all questions to the model under the edits; `edited`: also how far it has moved. `begun`: a pass begins."""
    model, tokenizer, config = run.under(deltas), run.lm.tokenizer, run.config.eval
    prompts = [one.prompt for one in exam.spoken]
    said = speech.lines(model, tokenizer, prompts, config.max_new_tokens, begun)
    scores = answered(exam.spoken, said)
    if exam.flowing:
        items, starts = zip(*exam.flowing, strict=True)
        flow = speech.texts(model, tokenizer, starts, config.fluency_tokens, begun)
        scores["fluency"] = Score(np.array([ngram_entropy(text) for text in flow]), items)
    if exam.reading is not None:
        found = ask(model, exam.reading, "reading", begun)
        names = tuple(f"window {m}" for m in range(len(exam.reading.items)))
        scores["perplexity"] = Score(-found.logprob / found.tokens, names)
    if exam.contest is not None:
        scores |= contest(model, exam.contest, "contest", begun)
    scores |= ability_scores(run, exam, deltas, begun)
    if exam.unrelated is not None and edited:
        moved = drift(model, exam.unrelated, "unrelated", begun)
        scores["LS.same"] = Score(moved.same, exam.unrelated_items)
        scores["LS.kl"] = Score(moved.kl, exam.unrelated_items)
    return Examined(scores, tuple(said))


def ability_scores(
    run: Prepared, exam: Exam, deltas: Deltas, begun: Callable[[], None] = lambda: None
) -> dict[str, Score]:
    """General ability under the edits; nothing where it is not asked for."""
    if exam.ability is None:
        return {}
    return ability(run.under(deltas), exam.ability, "ability", begun)


def passes(exam: Exam, *, edited: bool) -> int:
    """How many passes `examine` takes."""
    plans = [exam.reading, exam.contest, exam.ability, exam.unrelated if edited else None]
    spoken = speech.passes(len(exam.spoken)) + speech.passes(len(exam.flowing))
    return spoken + sum(len(plan) for plan in plans if plan is not None)


def answered(spoken: Sequence[Spoken], said: Sequence[str]) -> dict[str, Score]:
    """Exact and contained match of the facts' answers, and whether a further question's answer is in what is said."""
    found: dict[str, list[tuple[str, float]]] = {}
    for one, words in zip(spoken, said, strict=True):
        right = contained(words, one.answers)
        if one.score in NAMES.values():
            found.setdefault(f"{one.score}.exact", []).append((one.item, float(exact(words, one.answers))))
            found.setdefault(f"{one.score}.contained", []).append((one.item, float(right)))
        elif one.score:
            found.setdefault(one.score, []).append((one.item, float(right)))
    return {
        name: Score(np.array([value for _, value in pairs]), tuple(item for item, _ in pairs))
        for name, pairs in found.items()
    }


def examples(exam: Exam, before: Examined, after: Examined) -> list[Example]:
    """Facts from all along the sequence in the model's own words, where it was asked both times."""
    if not (before.said and after.said):
        return []
    shown = [(exam.spoken[m], before.said[m], after.said[m]) for m in exam.shown]
    return [Example(one.prompt, one.answers[0], *words) for one, *words in shown]


def failed(plan: EditPlan, exam: Exam, before: Examined, after: Examined) -> dict[str, list[dict[str, Any]]]:
    """The worst failures of each published score with their texts and, where it was asked, what the edited model said.

    They stand in summary.json, since no other file of the workdir has all prompts. A prompt that several facts share
    comes once; `times` counts its failures.
    """
    said = dict(zip((one.prompt for one in exam.spoken), after.said, strict=False))
    worst = failures.failures({"unedited": before.scores, "edited": after.scores})
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, name in NAMES.items():
        cues = {item: cue for record in drawn(plan) for item, cue in _cues(record, kind)}
        alike: dict[Cue, list[str]] = {}
        for one in worst[name].found:
            alike.setdefault(cues[one.item], []).append(one.item)
        found[name] = [
            {"item": those[0], "prompt": cue.prompt, "answer": cue.answer, "said": said.get(cue.prompt)}
            | {"times": len(those)}
            for cue, those in list(alike.items())[: failures.SHOWN]
        ]
    return found


def _cues(record: EditRecord, kind: str) -> Iterator[tuple[str, Cue]]:
    return zip(record.item_names(kind), record.cues(kind), strict=True)


def retention(plan: EditPlan, scores: Scores) -> Scores:
    """The scores of the first, the middle and the last tenth of the edits; none of fewer than ten."""
    n_facts = sum(len(plan.records(j)) for j in range(len(plan)))
    size = n_facts // 10
    if not size:
        return {}
    starts = {"first": 0, "middle": (n_facts - size) // 2, "last": n_facts - size}
    found: dict[str, Score] = {}
    for kind, name in NAMES.items():
        if name in scores:
            facts = _facts_of(plan, kind)
            for part, start in starts.items():
                found[f"{name}.{part}"] = _chosen(scores[name], (facts >= start) & (facts < start + size))
    return {name: score for name, score in found.items() if score.items}


def _facts_of(plan: EditPlan, kind: str) -> Int[np.ndarray, " prompts"]:
    """Which fact of the sequence each prompt belongs to."""
    counts = [len(plan.records(j)) for j in range(len(plan))]
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.concatenate([first + plan.owners(j, kind) for j, first in enumerate(firsts.tolist())])


def _chosen(score: Score, which: Bool[np.ndarray, " items"]) -> Score:
    return Score(score.values[which], tuple(item for item, one in zip(score.items, which, strict=True) if one))
