"""What a run takes in beside its config, part by part, as digests: it does not go on with anything else."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.candidates import CandidatePlan
from emsedit_jax.disk import file_sha256
from emsedit_jax.lm import identity
from emsedit_jax.run import arrays, networks
from emsedit_jax.run.exam import Exam
from emsedit_jax.run.facts import drawn
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.types import MetaState

NETWORKS = "the networks (--config.editor.load)"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def digests(run: Prepared, questions: Exam, state: MetaState | None) -> dict[str, str]:
    """What the part is, in the words of a message -> its digest; the same in all processes, which must all call it.

    `state` is what training or editing begins with: drawn networks follow from the config, those of a file are a part.
    None where nothing is made with networks.
    """
    loaded = state is not None and bool(run.config.editor.get("load"))
    parts: dict[str, Iterable[Any]] = {
        "the model's weights": [identity.exact(run.lm.params)],
        "the model's config.json": [run.lm.config],
        "the tokenizer": _tokenizer(run),
        "the facts": _facts(run),
        "the facts' tokens": (item for plan in _plans(run) for item in plan.token_items()),
        "the facts' further questions": (record.asked for record in drawn(run.valid_plan)),
        "the running text's tokens (--config.eval.text_path)": questions.reading.items if questions.reading else (),
        "the items of ability (--config.eval.ability_path)": _ability(questions),
        NETWORKS: arrays.digests(networks.named(run.editor, state)).items() if loaded else (),
    }
    return {name: _digest(part) for name, part in parts.items()}


def differing(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The parts that two runs do not share."""
    return [name for name in dict.fromkeys((*here, *there)) if there.get(name) != here.get(name)]


def _digest(part: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for one in part:
        found.update(f"{one!r}\n".encode())
    return found.hexdigest()


def _tokenizer(run: Prepared) -> Iterator[tuple[str, str]]:
    """Its files: what is said depends on how tokens become text as well."""
    for name in TOKENIZER_FILES:
        if (path := run.lm.folder / name).is_file():
            yield name, file_sha256(path)


def _plans(run: Prepared) -> list[EditPlan]:
    plans = (run.train_plan, run.holdout.plan if run.holdout else None, run.valid_plan)
    return [plan for plan in plans if plan is not None]


def _facts(run: Prepared) -> Iterator[Any]:
    """All facts as drawn, but for what else is asked about them."""
    for plan in _plans(run):
        yield from (dataclasses.replace(record, asked=()) for record in drawn(plan))


def _ability(questions: Exam) -> Iterator[Any]:
    if questions.ability is None:
        return
    candidates: CandidatePlan = questions.ability.candidates
    yield from candidates.questions.items
    yield candidates.words_qw.tolist()
    for name, task in questions.ability.tasks.items():
        yield name, task.labels.tolist(), task.sources
