"""EasyEdit's requests: as its editor makes them, as its data files and KnowEdit's have them, or as its arguments.

A request has `prompt`, `target_new` and, if wanted, `subject`, `rephrase_prompt` (text, or a list), `locality` and
`portability`: objects with a name for each sort, `{"neighborhood": {"prompt": ..., "ground_truth": ...}}`. Both fields
are texts, or lists of the same length; KnowEdit has a list of such objects instead. Where one prompt has a list of
answers, any one of them is right. `locality_prompt` with `locality_ground_truth` is a sort without a name, and
`text`, `labels` and `concept` are KnowEdit's other names of `prompt`, `target_new` and `subject`. What is null or blank
is none; `ground_truth`, what the unedited model is thought to say, is not read.

Spaces around an answer are taken off, since one is put before every answer; prompts stay as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emsedit_jax.data.cues import Asked, Cue, Cues, Draw, Role
from emsedit_jax.data.fields import RowFault, field, full, hint, kind, string

OTHER_NAMES = {"prompt": "text", "target_new": "labels", "subject": "concept"}  # in KnowEdit's WikiBio
REPHRASED = ("rephrase_prompt", "rephrase_prompts")
FLAT = ("locality_prompt", "locality_ground_truth")
FIELDS = (*OTHER_NAMES, *OTHER_NAMES.values(), *REPHRASED, "locality", "portability", *FLAT)
UNREAD = ("ground_truth", "target_neg", "loc_prompt", "loc_prompts")  # what others of its editors train on
ARGUMENTS = {"prompts": "prompt", "target_new": "target_new", "subject": "subject", "rephrase_prompts": REPHRASED[0]}
INPUTS = {"locality_inputs": "locality", "portability_inputs": "portability"}
_NEAR = 0.8  # two names are so much alike that one is the other, mistyped
_NESTED = 2  # KnowEdit's lists of answers: alternatives, each in all of its spellings


def easyedit(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """A request: all rephrased and unrelated prompts to evaluate with, the first of each to train on.

    Portability is asked in evaluation, each sort a criterion. Raises: RowFault, also for a mistyped field.
    """
    _check_names(row, FIELDS, UNREAD)
    for name in (one for one in INPUTS if one in row):
        raise RowFault(f"field '{name}' is an argument of EasyEdit's editor; a request has '{INPUTS[name]}'")
    prompt, answer, subject = (name if name in row else _other(row, name) for name in OTHER_NAMES)
    new = full(field(row, answer), answer).strip()
    equiv = [Cue(one, new) for name in REPHRASED for one in _said(row.get(name), name, 1)]
    unrel = [Cue(one.prompt, one.answers[0]) for one in (*_sorts(row, "locality"), *_flat(row))]
    asked = tuple(_sorts(row, "portability")) if role == "eval" else ()
    taken = 1 if role == "train" else None
    about = string(row[subject], subject) if row.get(subject) is not None else ""
    return [Cues(Cue(full(field(row, prompt), prompt), new), tuple(equiv[:taken]), tuple(unrel[:taken]), about, asked)]


def _other(row: dict, name: str) -> str:
    """KnowEdit's other name of a field that the row lacks, if it has that."""
    return OTHER_NAMES[name] if OTHER_NAMES[name] in row else name


def _check_names(found: Mapping[str, Any], read: Sequence[str], unread: Sequence[str]) -> None:
    """Raises: RowFault for a name that is nearly one that is read; data files have all sorts of others beside them."""
    for name in found:
        if name not in (*read, *unread) and difflib.get_close_matches(name, read, 1, _NEAR):
            raise RowFault(f"field '{name}' is not known{hint(name, read)}")


def _sorts(row: dict, name: str) -> Iterator[Asked]:
    """The questions of `locality` or `portability`, sort after sort. Raises: RowFault."""
    sorts = row.get(name)
    if sorts is None:
        return
    if not isinstance(sorts, dict):
        raise RowFault(f"field '{name}' is {kind(sorts)}, not an object with a name for each sort of prompts")
    for sort, found in sorts.items():
        criterion = re.sub(r"\W+", "_", sort).strip("_")  # it becomes part of a score's name
        if not criterion:
            raise RowFault(f"field '{name}' holds a sort without a name")
        listed = isinstance(found, list)
        for m, item in enumerate(found if listed else [found]):
            where = f"{name}.{sort}[{m}]." if listed else f"{name}.{sort}."
            if item is not None:
                yield from _questions(item, criterion, where, "prompt", "ground_truth")


def _flat(row: dict) -> Iterator[Asked]:
    """The unrelated prompts that stand in the row itself."""
    if any(row.get(name) is not None for name in FLAT):
        yield from _questions(row, "", "", *FLAT)


def _questions(item: Any, criterion: str, where: str, prompt: str, truth: str) -> Iterator[Asked]:
    """The prompts of an object that are not blank and have an answer. Raises: RowFault."""
    prompts, truths = field(item, prompt, where), field(item, truth, where)
    several = isinstance(prompts, list)
    if several and not (isinstance(truths, list) and len(truths) == len(prompts)):
        held = f"holds {len(truths)}" if isinstance(truths, list) else f"is {kind(truths)}"
        raise RowFault(f"field '{where}{truth}' {held}, '{where}{prompt}' holds {len(prompts)}: each needs an answer")
    for m, (asked, right) in enumerate(zip(prompts, truths, strict=True) if several else [(prompts, truths)]):
        place = f"[{m}]" if several else ""
        said = _said(asked, f"{where}{prompt}{place}", 0)
        answers = [one.strip() for one in _said(right, f"{where}{truth}{place}", _NESTED)]
        if said and answers:
            yield Asked(criterion, said[0], tuple(answers))


def _said(value: Any, path: str, nested: int) -> list[str]:
    """The texts that are not blank of a text, or of lists in each other, at most so many. Raises: RowFault."""
    if value is None:
        return []
    if isinstance(value, list) and nested:
        return [said for m, one in enumerate(value) for said in _said(one, f"{path}[{m}]", nested - 1)]
    found = string(value, path)
    return [found] if found.strip() else []


# ---------------------------------------------------------------------------------------------- parallel lists


def parallel(call: dict) -> list[dict]:
    """The arguments of EasyEdit's `editor.edit` as one object of parallel lists -> a request for each prompt.

    Raises: RowFault for lists that do not fit each other, and where there are no prompts.
    """
    _check_names(call, (*ARGUMENTS, *INPUTS), UNREAD)
    prompts = field(call, "prompts")
    rows: list[dict] = [{} for _ in range(len(prompts) if isinstance(prompts, list) else 1)]
    for name in (one for one in ARGUMENTS if call.get(one) is not None):
        for row, value in zip(rows, _of_each(call[name], len(rows), name), strict=True):
            row[ARGUMENTS[name]] = value
    for name in (one for one in INPUTS if call.get(one) is not None):
        for row, sorts in zip(rows, _sorts_of_each(call[name], len(rows), name), strict=True):
            row[INPUTS[name]] = sorts
    return rows


def _sorts_of_each(inputs: Any, size: int, name: str) -> list[dict]:
    """The sorts of each request. Raises: RowFault."""
    if not isinstance(inputs, dict):
        raise RowFault(f"field '{name}' is {kind(inputs)}, not an object with a name for each sort of prompts")
    rows: list[dict] = [{} for _ in range(size)]
    for sort, found in inputs.items():
        where = f"{name}.{sort}."
        lists = (_of_each(field(found, one, where), size, where + one) for one in ("prompt", "ground_truth"))
        for row, prompt, truth in zip(rows, *lists, strict=True):
            row[sort] = {"prompt": prompt, "ground_truth": truth}
    return rows


def _of_each(values: Any, size: int, path: str) -> list[Any]:
    """A value for each of so many requests; a text is that of a single one. Raises: RowFault."""
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, list):
        raise RowFault(f"field '{path}' is {kind(values)}, not a list")
    if len(values) != size:
        raise RowFault(f"field '{path}' holds {len(values)}, 'prompts' holds {size}")
    return values
