"""The plain format of anyone's own facts, as objects (JSON lines) or as a table (CSV, Parquet).

An object has `prompt`, `answer` and, if wanted, `subject`, `paraphrases` (a list of texts) and `unrelated` (a list of
objects with `prompt` and `answer`). A table has instead any number of columns `paraphrase`, `paraphrase_1`, ...,
`unrelated_prompt`, `unrelated_prompt_1`, ... and `unrelated_answer`, `unrelated_answer_1`, ...; a blank cell says that
there is none.

Spaces around an answer are taken off, since one is put before every answer; prompts stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

from emsedit_jax.data.cues import Cue, Cues, Draw, Role
from emsedit_jax.data.fields import RowFault, entries, full, hint, string, text

FIELDS = ("prompt", "answer", "subject", "paraphrases", "unrelated")
COLUMNS = ("paraphrase", "unrelated_prompt", "unrelated_answer")  # or with a number: paraphrase_1
_COLUMN = re.compile(rf"({'|'.join(COLUMNS)})(_[0-9]+)?")


def facts(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """Anyone's own facts: all paraphrases and unrelated prompts to evaluate with, the first of each to train on.

    Raises: RowFault, also for a field that is not known.
    """
    for name in row:
        if name not in FIELDS and not _COLUMN.fullmatch(name):
            known = (*FIELDS, *COLUMNS)
            raise RowFault(f"field '{name}' is not known{hint(name, known)}; known are {', '.join(known)}")
    answer = text(row, "answer").strip()
    equiv = [Cue(prompt, answer) for prompt in (*_listed(row), *_column(row))]
    unrel = [*_objects(row), *_pairs(row)]
    taken = 1 if role == "train" else None
    subject = string(row["subject"], "subject") if row.get("subject") is not None else ""
    return [Cues(Cue(text(row, "prompt"), answer), tuple(equiv[:taken]), tuple(unrel[:taken]), subject)]


def _optional(row: dict, name: str, columns: str) -> list[Any]:
    """The entries of a list that may be missing. Raises: RowFault, for text with the columns that a table has."""
    if isinstance(row.get(name), str):
        raise RowFault(f"field '{name}' is text, not a list; a table has columns {columns}, ... instead")
    return entries(row, name) if row.get(name) is not None else []


def _listed(row: dict) -> list[str]:
    found = _optional(row, "paraphrases", "paraphrase_1, paraphrase_2")
    return [full(entry, f"paraphrases[{m}]") for m, entry in enumerate(found)]


def _objects(row: dict) -> list[Cue]:
    found = _optional(row, "unrelated", "unrelated_prompt_1, unrelated_answer_1")
    places = [(entry, f"unrelated[{m}].") for m, entry in enumerate(found)]
    return [Cue(text(entry, "prompt", where), text(entry, "answer", where).strip()) for entry, where in places]


def _column(row: dict) -> list[str]:
    """The paraphrases of a table's row, in the order of its columns."""
    names = [name for name in row if (found := _COLUMN.fullmatch(name)) and found[1] == "paraphrase"]
    return [row[name] for name in names if not _is_blank(row, name)]


def _pairs(row: dict) -> list[Cue]:
    """The unrelated prompts of a table's row with the answers of the same number. Raises: RowFault for half a pair."""
    matches = [found for name in row if (found := _COLUMN.fullmatch(name)) and found[1] != "paraphrase"]
    pairs = []
    for number in dict.fromkeys(found[2] or "" for found in matches):
        names = f"unrelated_prompt{number}", f"unrelated_answer{number}"
        if not all(_is_blank(row, name) for name in names):
            prompt, answer = (text(row, name) for name in names)
            pairs.append(Cue(prompt, answer.strip()))
    return pairs


def _is_blank(row: dict, name: str) -> bool:
    return row.get(name) is None or not string(row[name], name).strip()
