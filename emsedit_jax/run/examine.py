"""Asking the model what `exam` has chosen, and the scores that come of it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.candidates import CandidatePlan
from emsedit_jax.data.questions import QuestionPlan
from emsedit_jax.data.records import Cue, EditRecord
from emsedit_jax.measure import speech
from emsedit_jax.measure.ability import ability
from emsedit_jax.measure.ask import ask, drift
from emsedit_jax.measure.contest import ContestPlan, contest
from emsedit_jax.measure.passes import Passes
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


class Part(NamedTuple):
    """One sort of questions, put to a model by itself."""

    asked: Any  # what the questions are, of types whose `repr` says all
    cuts: Sequence[Sequence[int]]  # the places of each pass's questions
    ask: Callable[[Passes], Examined]


def mark(*asked: Any) -> str:
    """Digest of what is asked."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def parts(run: Prepared, exam: Exam, deltas: Deltas, *, edited: bool) -> dict[str, Part]:
    """All questions to the model under the edits, by sort; `edited`: also how far it has moved.

    Nothing is asked yet.
    """
    model, tokenizer, config = run.under(deltas), run.lm.tokenizer, run.config.eval

    def spoken(passes: Passes) -> Examined:
        said = speech.lines(model, tokenizer, prompts, config.max_new_tokens, passes)
        return Examined(answered(exam.spoken, said), tuple(said))

    def flowing(passes: Passes) -> Examined:
        flow = speech.texts(model, tokenizer, starts, config.fluency_tokens, passes)
        items = tuple(item for item, _ in exam.flowing)
        return Examined({"fluency": Score(np.array([ngram_entropy(text) for text in flow]), items)}, ())

    def reading(plan: QuestionPlan, passes: Passes) -> Examined:
        found = ask(model, plan, "reading", passes)
        names = tuple(f"window {m}" for m in range(len(plan.items)))
        return Examined({"perplexity": Score(-found.logprob / found.tokens, names)}, ())

    def moved(plan: QuestionPlan, passes: Passes) -> Examined:
        found, items = drift(model, plan, "unrelated", passes), exam.unrelated_items
        return Examined({"LS.same": Score(found.same, items), "LS.kl": Score(found.kl, items)}, ())

    def rivalling(plan: ContestPlan, passes: Passes) -> Examined:
        return Examined(contest(model, plan, "contest", passes), ())

    def able(passes: Passes) -> Examined:
        return Examined(ability_scores(run, exam, deltas, passes), ())

    prompts, starts = [one.prompt for one in exam.spoken], [start for _, start in exam.flowing]
    found = {"spoken": Part(exam.spoken, speech.cut(prompts), spoken)}
    if exam.flowing:
        found["flowing"] = Part(exam.flowing, speech.cut(starts), flowing)
    if (text := exam.reading) is not None:
        found["reading"] = Part(text.items, text.cuts, functools.partial(reading, text))
    if (rivals := exam.contest) is not None:
        of_rivals, cuts = _choices(rivals.candidates)
        found["contest"] = Part((of_rivals, rivals.items), cuts, functools.partial(rivalling, rivals))
    if exam.ability is not None:
        of_tasks, cuts = _choices(exam.ability.candidates)
        labels = {name: task.labels.tolist() for name, task in exam.ability.tasks.items()}
        found["ability"] = Part((of_tasks, labels), cuts, able)
    if (unrelated := exam.unrelated) is not None and edited:
        found["unrelated"] = Part(unrelated.items, unrelated.cuts, functools.partial(moved, unrelated))
    return found


def _choices(plan: CandidatePlan) -> tuple[Any, Sequence[Sequence[int]]]:
    """What choices ask, and the places of each pass's."""
    return (plan.questions.items, plan.words_qw.tolist()), plan.questions.cuts


def ability_scores(run: Prepared, exam: Exam, deltas: Deltas, passes: Passes | None = None) -> dict[str, Score]:
    """General ability under the edits; nothing where it is not asked for."""
    if exam.ability is None:
        return {}
    return ability(run.under(deltas), exam.ability, "ability", passes)


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
