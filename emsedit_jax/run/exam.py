"""What is asked of the model beside the published scores, before and after editing: the same questions both times."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from emsedit_jax.data import embedded
from emsedit_jax.data.ability import AbilityPlan, plan_ability
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.questions import QuestionPlan, plan_items, windows
from emsedit_jax.data.records import EditRecord
from emsedit_jax.errors import InputError
from emsedit_jax.measure import speech
from emsedit_jax.measure.ability import ability
from emsedit_jax.measure.ask import ask, drift
from emsedit_jax.measure.contest import ContestPlan, contest, plan_contest
from emsedit_jax.measure.said import contained, exact, ngram_entropy
from emsedit_jax.measure.scores import NAMES, Score, Scores
from emsedit_jax.run.facts import drawn
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.report import Example
from emsedit_jax.types import Deltas

WINDOW, READ_AT_ONCE = 128, 512  # tokens of running text that are read together, and of a pass: each has its logits


class Spoken(NamedTuple):
    """A prompt that the model answers in its own words."""

    score: str  # "ES", "GS" or "asks.CRITERION"
    item: str
    prompt: str
    answers: tuple[str, ...]  # any one of them is right


class Exam(NamedTuple):
    """All further questions, tokenised once; what is not asked is empty or None."""

    spoken: tuple[Spoken, ...]
    graded: bool  # whether what is said is held to the answers, or only shown
    flowing: tuple[tuple[str, str], ...]  # (item, prompt) of the longer texts
    unrelated: QuestionPlan | None
    unrelated_items: tuple[str, ...]
    reading: QuestionPlan | None  # windows of running text
    contest: ContestPlan | None  # prompts whose answer has another to beat
    ability: AbilityPlan | None


class Examined(NamedTuple):
    """What came of it."""

    scores: Scores
    said: tuple[str, ...]  # to each of `Exam.spoken`


def prepare_exam(run: Prepared) -> Exam:
    """Chooses and tokenises the questions. Raises InputError for files that are missing or malformed."""
    config = run.config.eval
    facts = drawn(run.valid_plan)
    further = config.further
    count = max(config.generated if further else 0, config.examples)
    spoken = _facts_spoken(_spread(facts, count))
    if not further:
        return Exam(spoken, False, (), None, (), None, None, None)
    graded = config.generated > 0
    unrelated = [item for items in run.valid_plan.items["unrel"] for item in items]
    return Exam(
        spoken=(*spoken, *_asked(facts, config.per_criterion)),
        graded=graded,
        flowing=tuple((record.source, record.edit.prompt) for record in _spread(facts, config.fluency)),
        unrelated=plan_items(unrelated, config.batch_tokens) if unrelated else None,
        unrelated_items=item_names(run.valid_plan, "unrel"),
        reading=_reading(run),
        contest=_contest(run, facts),
        ability=_ability(run) if config.ability_path else None,
    )


def item_names(plan: EditPlan, kind: str) -> tuple[str, ...]:
    """What each prompt of a kind is called, batch after batch: its fact, with a number where that has several."""
    names: list[str] = []
    for j in range(len(plan)):
        owners = plan.owners(j, kind)
        counts = np.bincount(owners, minlength=len(plan.records(j)))
        for record, number in zip(plan.records(j), counts.tolist(), strict=True):
            names += [record.source] if number == 1 else [f"{record.source} #{m}" for m in range(number)]
    return tuple(names)


def _spread(facts: Sequence[EditRecord], count: int) -> list[EditRecord]:
    """So many of them from all along the sequence."""
    return [facts[place] for place in spread(len(facts), count)]


def spread(size: int, count: int) -> list[int]:
    """`count` of `size` places, the first and the last among them."""
    return np.linspace(0, size - 1, min(count, size)).round().astype(int).tolist() if size and count else []


def _facts_spoken(facts: Sequence[EditRecord]) -> tuple[Spoken, ...]:
    """The edited prompts, then a paraphrase of each fact that has one of its own."""
    edited = [Spoken("ES", fact.source, fact.edit.prompt, (fact.edit.answer,)) for fact in facts]
    own = [fact for fact in facts if fact.equiv and "equiv" not in fact.borrowed]
    others = [Spoken("GS", fact.source, fact.equiv[0].prompt, (fact.equiv[0].answer,)) for fact in own]
    return (*edited, *others)


def _asked(facts: Sequence[EditRecord], per_criterion: int) -> tuple[Spoken, ...]:
    """The facts' further questions, at most so many of each sort and fact; only of rows that are edited as a whole."""
    made = collections.Counter(fact.row for fact in facts)
    found = []
    for fact in facts:
        if fact.asked and made[fact.row] >= fact.parts:
            counts: collections.Counter[str] = collections.Counter()
            for question in fact.asked:
                number = counts[question.criterion]
                counts[question.criterion] += 1
                if not per_criterion or number < per_criterion:
                    item = f"{fact.row} {question.criterion} #{number}"
                    found.append(Spoken(f"asks.{question.criterion}", item, question.prompt, question.answers))
    return tuple(found)


def _reading(run: Prepared) -> QuestionPlan:
    path = run.config.eval.text_path
    text = read_text(path) if path else embedded.running_text()
    found = windows(text, run.lm.tokenizer, min(WINDOW, run.lm.config.max_length or WINDOW))
    if not found:
        raise InputError(f"--config.eval.text_path={path}: the text is too short to be read; give a page or more.")
    return plan_items(found, min(READ_AT_ONCE, run.config.eval.batch_tokens))


def _contest(run: Prepared, facts: Sequence[EditRecord]) -> ContestPlan | None:
    if not any(cue.versus for fact in facts for cue in (fact.edit, *fact.equiv, *fact.unrel)):
        return None
    max_tokens = run.config.eval.batch_tokens
    return plan_contest(facts, run.lm.tokenizer, max_tokens=max_tokens, longest=run.lm.config.max_length)


def _ability(run: Prepared) -> AbilityPlan:
    config = run.config.eval
    return plan_ability(
        config.ability_path,
        run.lm.tokenizer,
        max_tokens=config.batch_tokens,
        longest=run.lm.config.max_length,
        tasks=config.ability_tasks,
        items=config.ability_items,
        shots=config.ability_shots,
    )


def read_text(path: str) -> str:
    """The file's text. Raises InputError where it cannot be read as UTF-8."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"--config.eval.text_path={path}: {(error.strerror or str(error)).lower()}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--config.eval.text_path={path}: not UTF-8 text at byte {error.start}.") from None


# ---------------------------------------------------------------------------------------------- asking


def examine(run: Prepared, exam: Exam, deltas: Deltas, *, edited: bool, begun: Callable[[], None]) -> Examined:
    """Puts all questions to the model under the edits; `edited`: also how far it has moved. `begun`: a pass begins."""
    lm, sites = run.lm, run.editor.sites
    whole = lm.config, sites, lm.params, deltas
    talk = lm.config, lm.params, lm.tokenizer
    config = run.config.eval
    prompts = [one.prompt for one in exam.spoken]
    said = speech.lines(*talk, prompts, config.max_new_tokens, sites, deltas, begun)
    scores = answered(exam.spoken, said) if exam.graded else {}
    if exam.flowing:
        items, starts = zip(*exam.flowing, strict=True)
        flow = speech.texts(*talk, starts, config.fluency_tokens, sites, deltas, begun)
        scores["fluency"] = Score(np.array([ngram_entropy(text) for text in flow]), items)
    if exam.reading is not None:
        found = ask(*whole, exam.reading, run.prefixes, "reading", begun)
        names = tuple(f"window {m}" for m in range(len(exam.reading.items)))
        scores["perplexity"] = Score(-found.logprob / found.tokens, names)
    if exam.contest is not None:
        scores |= contest(exam.contest, *whole, run.prefixes, "contest", begun)
    scores |= ability_scores(run, exam, deltas, begun)
    if exam.unrelated is not None and edited:
        moved = drift(*whole, exam.unrelated, run.prefixes, "unrelated", begun)
        scores["LS.same"] = Score(moved.same, exam.unrelated_items)
        scores["LS.kl"] = Score(moved.kl, exam.unrelated_items)
    return Examined(scores, tuple(said))


def ability_scores(
    run: Prepared, exam: Exam, deltas: Deltas, begun: Callable[[], None] = lambda: None
) -> dict[str, Score]:
    """General ability under the edits; nothing where it is not asked for."""
    if exam.ability is None:
        return {}
    whole = run.lm.config, run.editor.sites, run.lm.params, deltas
    return ability(exam.ability, *whole, run.prefixes, "ability", begun)


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
        else:
            found.setdefault(one.score, []).append((one.item, float(right)))
    return {
        name: Score(np.array([value for _, value in pairs]), tuple(item for item, _ in pairs))
        for name, pairs in found.items()
    }


def examples(run: Prepared, exam: Exam, before: Examined, after: Examined) -> list[Example]:
    """Facts from all along the sequence in the model's own words, where it was asked both times."""
    if not (before.said and after.said):
        return []
    edited = [m for m, one in enumerate(exam.spoken) if one.score == "ES"]
    places = [edited[place] for place in spread(len(edited), run.config.eval.examples)]
    shown = [(exam.spoken[m], before.said[m], after.said[m]) for m in places]
    return [Example(one.prompt, one.answers[0], *words) for one, *words in shown]


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
