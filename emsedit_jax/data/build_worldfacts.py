"""Builds the embedded facts, worldfacts/train.jsonl and eval.jsonl, from the tables in worldfacts/sources.

`python -m emsedit_jax.data.build_worldfacts` writes the same bytes wherever it runs: every choice is an ordering by
SHA-256 of the seed and what is chosen from, so it depends neither on a random generator's version nor on row order, and
a new table moves no old fact to the other split.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from emsedit_jax.data.embedded import FOLDER, SPLITS
from emsedit_jax.errors import InputError

SOURCES = FOLDER / "sources"
SEED = 1
EVAL_SHARE = 0.3
UNRELATED = 3  # per fact


T = TypeVar("T")


@dataclass(frozen=True)
class Fact:
    """One line of a source table, with its relation's wordings filled in."""

    relation: str
    subject: str
    prompts: tuple[str, ...]  # the first is an unfinished sentence, for unrelated prompts; the others ask, for edits
    answer: str
    also: tuple[str, ...]  # what is true as well
    fame: int  # 1 (best known) to 3
    probes: bool = False  # whether even a small language model knows the famous ones of this relation

    @property
    def id(self) -> str:
        return f"{self.relation}:{self.subject}"

    @property
    def truths(self) -> tuple[str, ...]:
        return (self.answer, *self.also)


# ---------------------------------------------------------------------------------------------- the tables


def read_facts(folder: Path = SOURCES) -> list[Fact]:
    """Every fact of every table named in relations.csv. Raises: InputError naming table and line."""
    facts = []
    for relation, probes, *wordings in _table(folder / "relations.csv", 7):
        for place, (subject, answer, also, fame) in enumerate(_table(folder / f"{relation}.csv", 4), 2):
            if not (subject and answer and fame in {"1", "2", "3"}):
                raise InputError(f"{relation}.csv line {place}: subject, answer and a fame of 1 to 3 are needed.")
            others = tuple(other for other in also.split("|") if other)
            prompts = _filled(wordings, subject)
            subject = subject.removeprefix("the ")  # "the Netherlands" is what a sentence calls the subject
            facts.append(Fact(relation, subject, prompts, answer, others, int(fame), probes == "yes"))
    return facts


def _table(path: Path, columns: int) -> list[list[str]]:
    """The rows below the head line, each of `columns` stripped cells."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    for place, row in enumerate(rows, 2):
        if len(row) != columns or any(cell != cell.strip() for cell in row):
            raise InputError(f"{path.name} line {place}: not {columns} cells without spaces around them: {row}.")
    return rows


def _filled(wordings: Iterable[str], subject: str) -> tuple[str, ...]:
    """The wordings with the subject in them, each beginning with a capital letter."""
    prompts = (wording.replace("{}", subject) for wording in wordings)
    return tuple(prompt[0].upper() + prompt[1:] for prompt in prompts)


# ---------------------------------------------------------------------------------------------- the choices


def _mixed(items: Iterable[T], *reason: str, key: Callable[[T], str] = str) -> list[T]:
    """The items in an order that is fixed by the seed and the reason, and otherwise haphazard."""

    head = "|".join((str(SEED), *reason))
    return sorted(items, key=lambda item: hashlib.sha256(f"{head}|{key(item)}".encode()).digest())


def split_subjects(facts: Sequence[Fact]) -> dict[str, str]:
    """Subject in small letters -> "train" or "eval": the same share of each relation's new subjects."""
    fresh: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for fact in facts:
        if fact.subject.casefold() not in seen:
            seen.add(fact.subject.casefold())
            fresh[fact.relation].append(fact.subject.casefold())
    split = {}
    for relation, subjects in fresh.items():
        for place, subject in enumerate(_mixed(subjects, "split", relation)):
            split[subject] = "eval" if place < EVAL_SHARE * len(subjects) else "train"
    return split


def spread(facts: Sequence[Fact]) -> list[Fact]:
    """Mixes the facts and keeps those of one subject apart: its k facts come one in each k-th part of the order."""
    by_subject: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_subject[fact.subject.casefold()].append(fact)
    placed = []
    for turn, subject in enumerate(_mixed(by_subject, "order")):
        members = _mixed(by_subject[subject], "order", key=lambda fact: fact.id)
        for nth, fact in enumerate(members):
            placed.append(((nth + turn / len(by_subject)) / len(members), fact))
    return [fact for _, fact in sorted(placed, key=lambda pair: (pair[0], pair[1].id))]


def counterfactual(fact: Fact, facts: Sequence[Fact]) -> str:
    """Another answer of the relation: none that holds for this subject, has such a one in it or is part of one."""
    pool = _mixed({other.answer for other in facts if other.relation == fact.relation}, "new", fact.id)
    wrong = (new for new in pool if not any(_mentions([a], b) for t in fact.truths for a, b in ((t, new), (new, t))))
    found = next(wrong, None)
    if found is None:
        raise InputError(f"{fact.id}: every answer of {fact.relation}.csv is true of it; give the table more answers.")
    return found


def unrelated(fact: Fact, new: str, known: Sequence[Fact]) -> list[Fact]:
    """Facts of other relations about other subjects, each of a relation of its own, naming nothing of the edit.

    Args:
      known: the facts of the edit's split that a small model may be expected to know.
    """
    relations = _mixed({other.relation for other in known} - {fact.relation}, "relation", fact.id)
    chosen: list[Fact] = []
    for relation in relations:
        candidates = [other for other in known if other.relation == relation]
        for other in _mixed(candidates, "unrelated", fact.id, key=lambda fact: fact.id):
            said = (other.prompts[0], *other.truths)
            if other.subject not in {fact.subject, *(one.subject for one in chosen)} and not any(
                _mentions(said, name) for name in (fact.subject, new, *fact.truths)
            ):
                chosen.append(other)
                break
        if len(chosen) == UNRELATED:
            return chosen
    raise InputError(f"{fact.id}: fewer than {UNRELATED} unrelated facts; mark more facts with fame 1.")


def _mentions(texts: Iterable[str], name: str) -> bool:
    """Whether the name stands in one of the texts as whole words, letter case and punctuation aside."""
    return any(_words(name) in _words(text) for text in texts)


@functools.cache
def _words(text: str) -> str:
    """`"St. John's"` -> `" st john s "`."""
    letters = "".join(letter if letter.isalnum() else " " for letter in text.casefold())
    return f" {' '.join(letters.split())} "


# ---------------------------------------------------------------------------------------------- the rows


def build(facts: Sequence[Fact]) -> dict[str, list[dict]]:
    """Split -> its rows in file order."""
    home = split_subjects(facts)
    rows: dict[str, list[dict]] = {}
    for split in SPLITS:
        ours = [fact for fact in facts if home[fact.subject.casefold()] == split]
        known = [fact for fact in ours if fact.probes and fact.fame == 1]
        rows[split] = [_row(fact, facts, known) for fact in spread(ours)]
    return rows


def _row(fact: Fact, facts: Sequence[Fact], known: Sequence[Fact]) -> dict:
    new = counterfactual(fact, facts)
    question, *others = _mixed(fact.prompts[1:], "wording", fact.id)  # as in life, no two people ask alike
    return {
        "id": fact.id,
        "relation": fact.relation,
        "subject": fact.subject,
        "prompt": question,
        "answer_true": fact.answer,
        "answer_new": new,
        "paraphrases": others,
        "unrelated": [{"prompt": other.prompts[0], "answer": other.answer} for other in unrelated(fact, new, known)],
    }


def write(folder: Path = FOLDER, sources: Path = SOURCES) -> dict[str, list[dict]]:
    """Builds both files in `folder`, each under another name until it is complete, and returns their rows."""
    rows = build(read_facts(sources))
    for split, members in rows.items():
        partial = folder / f"{split}.jsonl.partial"
        partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in members), encoding="utf-8")
        os.replace(partial, folder / f"{split}.jsonl")
    return rows


def main() -> None:
    """Writes the shipped files and prints how many facts of which relation they hold."""
    rows = write()
    for relation in dict.fromkeys(row["relation"] for members in rows.values() for row in members):
        counts = [sum(row["relation"] == relation for row in rows[split]) for split in SPLITS]
        print(f"{relation:20} {counts[0]:5} train {counts[1]:5} eval")
    print(f"{'all':20} {len(rows['train']):5} train {len(rows['eval']):5} eval")


if __name__ == "__main__":
    main()
