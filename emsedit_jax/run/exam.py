"""What is asked of the model beside the published scores, before and after editing: the same questions both times."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from emsedit_jax import disk
from emsedit_jax.data import embedded
from emsedit_jax.data.ability import AbilityPlan, check_present, plan_ability
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.questions import QuestionPlan, plan_items, windows
from emsedit_jax.data.records import Cue, EditRecord
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.errors import InputError
from emsedit_jax.measure.contest import ContestPlan, plan_contest
from emsedit_jax.run.facts import drawn
from emsedit_jax.run.prepare import Prepared, say

MOST_TEXT = 2**26  # bytes of a running text: ten million words or so, which are all read before and after editing
WINDOW, READ_AT_ONCE = 128, 512  # tokens of running text that are read together, and of a pass: each has its logits


class Spoken(NamedTuple):
    """A prompt that the model answers in its own words."""

    score: str  # "ES", "GS" or "asks.CRITERION"; "": it is only shown
    item: str
    prompt: str
    answers: tuple[str, ...]  # any one of them is right


class Exam(NamedTuple):
    """All further questions, tokenised once; what is not asked is empty or None."""

    spoken: tuple[Spoken, ...] = ()
    shown: tuple[int, ...] = ()  # places in `spoken` of the facts that are shown before and after
    flowing: tuple[tuple[str, str], ...] = ()  # (item, prompt) of the longer texts
    unrelated: QuestionPlan | None = None
    unrelated_items: tuple[str, ...] = ()
    reading: QuestionPlan | None = None  # windows of running text
    contest: ContestPlan | None = None  # prompts whose answer has another to beat
    ability: AbilityPlan | None = None


def check_files(config: ml_collections.ConfigDict) -> None:
    """Cheap, so that it can be asked before a model is loaded. Raises InputError for files that are not there."""
    if config.eval.further and config.eval.text_path:
        read_text(config.eval.text_path)
    if config.eval.ability_path:
        check_present(config.eval.ability_path, config.eval.ability_tasks)


def prepare_exam(run: Prepared) -> Exam:
    """Chooses and tokenises the questions. Raises InputError for files that are missing or malformed."""
    config = run.config.eval
    facts = drawn(run.valid_plan)
    shown = spread(len(facts), config.examples)
    if not config.further:
        return Exam(_facts_spoken(facts, shown, ()), tuple(range(len(shown))))
    spoken = (
        *_facts_spoken(facts, shown, spread(len(facts), config.generated)),
        *_asked(facts, config.per_criterion),
    )
    _tell_long_answers(run, spoken)
    unrelated, names = _unrelated(run.valid_plan)
    flowing = [facts[place] for place in spread(len(facts), config.fluency)]
    found = Exam(
        spoken=spoken,
        shown=tuple(range(len(shown))),
        flowing=tuple((fact.source, fact.edit.prompt) for fact in flowing),
        unrelated=plan_items(unrelated, config.batch_tokens, run.valid_plan.parts) if unrelated else None,
        unrelated_items=names,
        reading=_reading(run),
        contest=_contest(run, facts),
        ability=_ability(run) if config.ability_path else None,
    )
    _check_tokens(run, found)
    return found


def _check_tokens(run: Prepared, exam: Exam) -> None:
    """Raises InputError for tokens that the model does not have. Unrelated prompts are the plan's, checked with it."""
    plans = [exam.reading] if exam.reading else []
    plans += [one.candidates.questions for one in (exam.contest, exam.ability) if one]
    run.lm.check_tokens(item.ids for plan in plans for item in plan.items)
    run.lm.check_tokens(row for one in (exam.contest, exam.ability) if one for row in one.candidates.words_qw.tolist())
    prompts = list(dict.fromkeys(one.prompt for one in exam.spoken))
    run.lm.check_tokens(run.lm.tokenizer(prompts)["input_ids"] if prompts else [])


def item_names(plan: EditPlan, kind: str) -> tuple[str, ...]:
    """What each prompt of a kind is called, batch after batch."""
    return tuple(name for record in drawn(plan) for name in record.item_names(kind))


def _unrelated(plan: EditPlan) -> tuple[list[TokenItem], tuple[str, ...]]:
    """The unrelated prompts that are no edited ones standing in, and what they are called."""
    items = [item for of_batch in plan.items["unrel"] for item in of_batch]
    own = [is_own for record in drawn(plan) for is_own in ["unrel" not in record.borrowed] * len(record.unrel)]
    found = [
        pair for pair, is_own in zip(zip(items, item_names(plan, "unrel"), strict=True), own, strict=True) if is_own
    ]
    return [item for item, _ in found], tuple(name for _, name in found)


def spread(size: int, count: int) -> list[int]:
    """`count` of `size` places, the first and the last among them."""
    return np.linspace(0, size - 1, min(count, size)).round().astype(int).tolist() if size and count else []


def _facts_spoken(facts: Sequence[EditRecord], shown: Sequence[int], graded: Sequence[int]) -> tuple[Spoken, ...]:
    """The edited prompts that are shown, in their order, those graded alone, and a paraphrase of each graded fact."""
    of_shown = [_spoken("ES" if place in graded else "", facts[place], facts[place].edit) for place in shown]
    of_others = [_spoken("ES", facts[place], facts[place].edit) for place in graded if place not in shown]
    own = [facts[place] for place in graded if facts[place].equiv and "equiv" not in facts[place].borrowed]
    return (*of_shown, *of_others, *(_spoken("GS", fact, fact.equiv[0]) for fact in own))


def _spoken(score: str, fact: EditRecord, cue: Cue) -> Spoken:
    return Spoken(score, fact.source, cue.prompt, (cue.answer,))


def _tell_long_answers(run: Prepared, spoken: Sequence[Spoken]) -> None:
    """Says how many answers cannot be right because the model may not say so much."""
    limit, texts = run.config.eval.max_new_tokens, [f" {answer}" for one in spoken for answer in one.answers]
    lengths = iter(
        [len(ids) for ids in run.lm.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
    )
    too_long = sum(min(next(lengths) for _ in one.answers) > limit for one in spoken)
    if too_long:
        words = "have an answer of more tokens than --config.eval.max_new_tokens, so they cannot be said right"
        say("answers", f"{too_long} of {len(spoken)} prompts {words}; raise it from {limit}")


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
                    item = f"{fact.row} #{question.criterion} {number}"
                    found.append(Spoken(f"asks.{question.criterion}", item, question.prompt, question.answers))
    return tuple(found)


def _reading(run: Prepared) -> QuestionPlan:
    path = run.config.eval.text_path
    text = read_text(path) if path else embedded.running_text()
    found = windows(text, run.lm.tokenizer, min(WINDOW, run.lm.config.max_length or WINDOW))
    if not found:
        raise InputError(f"--config.eval.text_path={path}: the text is too short to be read; give a page or more.")
    return plan_items(found, min(READ_AT_ONCE, run.config.eval.batch_tokens), run.valid_plan.parts)


def _contest(run: Prepared, facts: Sequence[EditRecord]) -> ContestPlan | None:
    if not any(cue.versus for fact in facts for cue in (fact.edit, *fact.equiv, *fact.unrel)):
        return None
    sizes = {"max_tokens": run.config.eval.batch_tokens, "parts": run.valid_plan.parts}
    return plan_contest(facts, run.lm.tokenizer, longest=run.lm.config.max_length, **sizes)


def _ability(run: Prepared) -> AbilityPlan:
    config = run.config.eval
    plan = plan_ability(
        config.ability_path,
        run.lm.tokenizer,
        max_tokens=config.batch_tokens,
        longest=run.lm.config.max_length,
        tasks=config.ability_tasks,
        items=config.ability_items,
        shots=config.ability_shots,
        parts=run.valid_plan.parts,
    )
    left_out = {name: task.left_out for name, task in plan.tasks.items() if task.left_out}
    if left_out:
        counts = ", ".join(f"{count} of {name}" for name, count in left_out.items())
        say("ability", f"items that are too long for the model are left out: {counts}")
    return plan


def read_text(path: str) -> str:
    """The file's text. Raises InputError where it cannot be read as UTF-8."""
    try:
        text = disk.content(path, MOST_TEXT).decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise InputError(f"--config.eval.text_path={path}: {(error.strerror or str(error)).lower()}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--config.eval.text_path={path}: not UTF-8 text at byte {error.start}.") from None
