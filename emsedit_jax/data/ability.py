"""Tasks of general ability (SST-2, MRPC, CoLA, RTE, MMLU, NLI): files of items -> prompts with label words, packed.

The likeliest label word is the model's answer. Prompts and words are those of the evaluation code that papers on
editing share, but for stray blanks and for RTE, where that code takes label 1 for "True": GLUE's 0 is "entailed". A new
task is a row of `TASKS`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from emsedit_jax.data import files
from emsedit_jax.data.candidates import CandidatePlan, Choice, plan_candidates, tokenize_choices
from emsedit_jax.data.faults import Fault, report
from emsedit_jax.data.fields import RowFault, field, hint, kind, text, texts
from emsedit_jax.data.tokens import TokenItem, Tokenizer
from emsedit_jax.errors import InputError, near

_SHOWN = 40  # letters of a wrong value in a message


class Task(NamedTuple):
    """How a task is stored, asked and answered."""

    fields: Mapping[str, Callable[[Any, str], Any]]  # name -> taken from a row with a check; raises RowFault
    prompt: str  # with the fields in braces; " " and a word follow
    label: str  # the field that holds the right answer, ...
    values: tuple[Any, ...]  # ... which is one of these, ...
    words: tuple[str, ...]  # ... and what the model would say for each


def _four(row: Any, name: str) -> list[str]:
    found = texts(row, name)
    if len(found) != 4:
        raise RowFault(f"field '{name}' holds {len(found)} texts, not 4")
    return found


_ONE, _TWO = {"sentence": text}, {"sentence1": text, "sentence2": text}

TASKS: dict[str, Task] = {  # the name is the file's, too
    "sst2": Task(_ONE, "Review : {sentence}\nSentiment :", "label", (0, 1), ("negative", "positive")),
    "mrpc": Task(
        _TWO,
        "Are the sentences paraphrases of each other.\nSentence 1: {sentence1}\nSentence 2: {sentence2}\nAnswer:",
        "label",
        (0, 1),
        ("No", "Yes"),
    ),
    "cola": Task(
        _ONE,
        "Is this sentence linguistically acceptable?\nSentence: {sentence}\nAnswer:",
        "label",
        (0, 1),
        ("No", "Yes"),
    ),
    "rte": Task(_TWO, "{sentence1}\nquestion: {sentence2} True or False?\nanswer:", "label", (0, 1), ("True", "False")),
    "mmlu": Task(
        {"question": text, "choices": _four},
        "Question: {question}\n(A) {choices[0]}\n(B) {choices[1]}\n(C) {choices[2]}\n(D) {choices[3]}\nAnswer:",
        "answer",
        (0, 1, 2, 3),
        ("A", "B", "C", "D"),
    ),
    "nli": Task(
        _TWO,
        "{sentence1} entails the {sentence2} True or False? Answer:",
        "label",
        ("not_entailment", "entailment"),
        ("False", "True"),
    ),
}


class Item(NamedTuple):
    """One item of a task."""

    prompt: str
    label: int  # place of the right word in the task's `words`
    source: str  # "rte.jsonl row 12"


@dataclasses.dataclass(frozen=True, eq=False)
class TaskPlan:
    """The scored items of one task."""

    start: int  # of its items among the choices of all tasks
    labels: Int[np.ndarray, " items"]  # place of the right word
    words: int  # how many there are
    sources: tuple[str, ...]  # of each item
    left_out: int  # items longer than the model takes


@dataclasses.dataclass(frozen=True, eq=False)
class AbilityPlan:
    """The items of all tasks, each with its label words, packed together."""

    tasks: Mapping[str, TaskPlan]
    candidates: CandidatePlan

    def __len__(self) -> int:
        return len(self.candidates)


def plan_ability(
    folder: str | Path,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    longest: int | None,
    tasks: Sequence[str] = (),
    items: int = 100,
    shots: int = 0,
    parts: int = 1,
) -> AbilityPlan:
    """Reads, tokenises and packs the tasks, once for a run.

    Args:
      folder: holds `<task>.jsonl` for each task.
      max_tokens: tokens of a part of a pass, about.
      longest: the longest prompt with answer that the model takes; longer items are left out and counted.
      tasks: keys of `TASKS`; none for all.
      items: at most so many of a task are scored, from the file's top.
      shots: answered items before each prompt, from the file's end and never among the scored ones.
      parts: of every pass, one a device that it is spread over.

    Raises: InputError for unknown tasks, numbers that leave nothing to score, and files that are missing or malformed.
    """
    if items < 1 or shots < 0:
        raise InputError(f"Ability tasks need at least 1 item and 0 or more shots, not {items} and {shots}.")
    folder, names = Path(folder), check_present(folder, tasks)
    plans: dict[str, TaskPlan] = {}
    candidates: list[list[TokenItem]] = []
    for name in names:
        chosen = _with_shots(read_items(name, folder / f"{name}.jsonl"), TASKS[name], items, shots)
        plans[name], found = _plan_task(name, chosen, tokenizer, longest, len(candidates), shots)
        candidates += found
    return AbilityPlan(plans, plan_candidates(candidates, max_tokens, parts))


def check_present(folder: str | Path, tasks: Sequence[str]) -> list[str]:
    """The tasks, all of `TASKS` for none. Cheap. Raises: InputError for unknown ones, and files that are missing."""
    folder, names = Path(folder), list(dict.fromkeys(tasks)) or list(TASKS)
    for name in names:
        if name not in TASKS:
            raise InputError(f"There is no ability task '{name}'.{near(name, TASKS)} Known: {', '.join(TASKS)}.")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; name the one that holds the files of the ability tasks.")
    there = sorted(entry.name for entry in folder.iterdir())
    wanted = [f"{name}.jsonl" for name in names]
    others = [name for name in there if name not in wanted]
    missing = [f"{name}{hint(name, others)}" for name in wanted if name not in there]
    if missing:
        advice = "Put it there (only .jsonl is read), or name the tasks that are there"
        raise InputError(f"{folder}: there is no {' and no '.join(missing)}. {advice}.")
    return names


def _plan_task(
    name: str, items: Sequence[Item], tokenizer: Tokenizer, longest: int | None, start: int, shots: int
) -> tuple[TaskPlan, list[list[TokenItem]]]:
    """The task's items that fit the model, and the label words of each as token sequences."""
    task = TASKS[name]
    choices = [Choice(item.prompt, task.words) for item in items]
    candidates = tokenize_choices(choices, tokenizer, longest=None, sources=[item.source for item in items])
    fit = [longest is None or max(len(one.tokens) for one in found) <= longest for found in candidates]
    kept = [item for item, fits in zip(items, fit, strict=True) if fits]
    if not kept:
        file = items[0].source.split(" row ")[0]
        advice = "lower the shots" if shots else f"leave out the task {name}"
        raise InputError(f"{file}: no item fits the {longest} tokens that the model takes; {advice}.")
    plan = TaskPlan(
        start=start,
        labels=np.array([item.label for item in kept]),
        words=len(task.words),
        sources=tuple(item.source for item in kept),
        left_out=len(items) - len(kept),
    )
    return plan, [found for found, fits in zip(candidates, fit, strict=True) if fits]


# ---------------------------------------------------------------------------------------------- files


def read_items(name: str, path: Path) -> list[Item]:
    """All items of a task's file, a JSON object a line. Raises: InputError naming rows (from 0), fields and faults."""
    found: list[Item] = []
    faults: list[Fault] = []
    rows = files.read(path, ("jsonl",), "eval")
    for number, row in enumerate(rows.rows):
        try:
            found.append(_item(TASKS[name], row, f"{rows.name} row {number}"))
        except RowFault as fault:
            faults.append(Fault(f"row {number}", str(fault)))
    if faults:
        raise InputError(f"{path}: {report(faults)}. Correct the file, or leave out the task {name}.")
    return found


def _item(task: Task, row: Any, source: str) -> Item:
    if isinstance(row, RowFault):
        raise row
    if not isinstance(row, dict):
        raise RowFault(f"the row is {kind(row)}, not an object")
    taken = {name: take(row, name) for name, take in task.fields.items()}
    bare = {name: value.strip() if isinstance(value, str) else value for name, value in taken.items()}
    value = field(row, task.label)
    for place, known in enumerate(task.values):
        if type(value) is type(known) and value == known:  # JSON's true is no 1
            return Item(task.prompt.format(**bare), place, source)
    said = json.dumps(value)
    said = said if len(said) <= _SHOWN else said[:_SHOWN] + "..."
    raise RowFault(f"field '{task.label}' is {said}, not {' or '.join(json.dumps(one) for one in task.values)}")


def _with_shots(found: Sequence[Item], task: Task, items: int, shots: int) -> list[Item]:
    """The first `items` that are no shots, each behind all shots."""
    if shots >= len(found):
        file = found[0].source.split(" row ")[0]
        raise InputError(f"{file}: {shots} shots of {len(found)} rows leave nothing to score; lower the shots.")
    shown = _shots(found, len(task.words), shots)
    before = "".join(f"{found[m].prompt} {task.words[found[m].label]}\n" for m in shown)
    scored = [item for m, item in enumerate(found) if m not in shown][:items]
    return [item._replace(prompt=before + item.prompt) for item in scored]


def _shots(found: Sequence[Item], n_labels: int, count: int) -> list[int]:
    """Places of the shots in file order: the last rows of each label, as many of each as can be."""
    ranked: list[tuple[int, int]] = []  # (how many of its label lie behind it, place)
    seen = [0] * n_labels
    for m in reversed(range(len(found))):
        ranked.append((seen[found[m].label], m))
        seen[found[m].label] += 1
    return sorted(m for _, m in sorted(ranked, key=lambda pair: (pair[0], -pair[1]))[:count])
