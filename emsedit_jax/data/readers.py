"""The data sets: how each is stored, and what one row of it asks and answers; a new one is a function and a row.

A file is read as training or as evaluation rows by its role alone, never by its name. Where a data set is read
otherwise than by the published program, its function says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from emsedit_jax.data.fields import RowFault, entries, field, first, full, kind, string, text, texts

Role = Literal["train", "eval"]
Draw = Callable[[int], int]  # draw(n): a place from 0 to n - 1, drawn for the row


@dataclass(frozen=True)
class Cue:
    """A prompt and the answer that should follow it (without the space between them)."""

    prompt: str
    answer: str
    versus: str | None = None  # the answer that it has to beat; None: any other token (METHODS section 7)


class Cues(NamedTuple):
    """What a reader takes from one row; `records.load` adds the source."""

    edit: Cue
    equiv: tuple[Cue, ...]
    unrel: tuple[Cue, ...]
    subject: str  # "" where the data set names none


class Reader(NamedTuple):
    """How a data set is stored, and the function from a row of it to its cues."""

    parse: Callable[[str], list[Any]]  # file text -> rows; ValueError if it is not of that format
    cues: Callable[[dict, Role, Draw], Cues]  # raises RowFault


# ---------------------------------------------------------------------------------------------- rows


def zsre(row: dict, role: Role, draw: Draw) -> Cues:
    """zsRE as in MEND: the unrelated question is stored without its question mark, the others with it."""
    answer = text(row, "ans")
    return Cues(
        edit=Cue(text(row, "src"), answer),
        equiv=(Cue(text(row, "rephrase"), answer),),
        unrel=(Cue(text(row, "loc") + "?", text(row, "loc_ans")),),
        subject=string(field(row, "subject"), "subject"),
    )


def counterfact(row: dict, role: Role, draw: Draw) -> Cues:
    """CounterFact: the new answer has to beat the true one, and the true one the new one on neighbours.

    To train on, the first paraphrase and the first neighbour are taken; to evaluate with, all of them.
    """
    where = "requested_rewrite."
    rewrite = field(row, "requested_rewrite")
    template, subject = text(rewrite, "prompt", where), text(rewrite, "subject", where)
    if template.count("{}") != 1:
        raise RowFault(f"field '{where}prompt' does not hold {{}} once, in the subject's place")
    new, true = (text(field(rewrite, name, where), "str", f"{where}{name}.") for name in ("target_new", "target_true"))

    def prompts(name: str) -> list[str]:
        return texts(row, name) if role == "eval" else [full(first(row, name), f"{name}[0]")]

    return Cues(
        edit=Cue(template.replace("{}", subject), new, versus=true),
        equiv=tuple(Cue(prompt, new, versus=true) for prompt in prompts("paraphrase_prompts")),
        unrel=tuple(Cue(prompt, true, versus=new) for prompt in prompts("neighborhood_prompts")),
        subject=subject,
    )


def ripple_effect(row: dict, role: Role, draw: Draw) -> Cues:
    """RippleEdits, in two forms that may be mixed in a file: a row with `rephrase_prompt` is in the training form.

    In the evaluation form the first usable alias is the paraphrase and the first usable specificity prompt the
    unrelated one; what a row has none of, the edit itself stands for. The published program would take a row with
    `locality_prompt` but no `rephrase_prompt` for one without either; here that is a fault.
    """
    edit = Cue(text(row, "prompt"), text(row, "target_new"))
    subject = string(field(row, "subject"), "subject")
    if "rephrase_prompt" in row or "locality_prompt" in row:
        equiv = Cue(text(row, "rephrase_prompt"), edit.answer)
        unrel = Cue(text(row, "locality_prompt"), text(row, "locality_ground_truth"))
    else:
        aliases = (prompt for prompt, _, _ in _asked(row, "Subject_Aliasing"))
        equiv = Cue(next(aliases, edit.prompt), edit.answer)
        unrel = _specific(row, edit)
    return Cues(edit, (equiv,), (unrel,), subject)


def _asked(row: dict, name: str) -> Iterator[tuple[str, Any, str]]:
    """(prompt, item, path to it) of the field's items that have a prompt; a row without the field has none."""
    for m, item in enumerate(entries(row, name) if name in row else []):
        where = f"{name}[{m}]."
        prompt = string(field(item, "prompt", where), where + "prompt")
        if prompt.strip():
            yield prompt, item, where


def _specific(row: dict, edit: Cue) -> Cue:
    """The first specificity item with a prompt and any targets, though they be blank; the edit if there is none."""
    for prompt, item, where in _asked(row, "Relation_Specificity"):
        if targets := entries(item, "targets", where):
            said = (string(target, f"{where}targets[{m}]") for m, target in enumerate(targets))
            return Cue(prompt, next((target for target in said if target.strip()), edit.answer))
    return edit


def fever(row: dict, role: Role, draw: Draw) -> Cues:
    """FEVER claims to be given another verdict; one of several paraphrases is drawn.

    The published program draws anew each time that an item is read; here a row keeps its draw.
    """
    verdict, paraphrases = text(row, "alt"), texts(row, "equiv_prompt")
    return Cues(
        edit=Cue(text(row, "prompt"), verdict),
        equiv=(Cue(paraphrases[draw(len(paraphrases))], verdict),),
        unrel=(Cue(text(row, "unrel_prompt"), text(row, "unrel_ans")),),
        subject="",
    )


def worldfacts(row: dict, role: Role, draw: Draw) -> Cues:
    """The embedded facts: `answer_new` is what to write; the first paraphrase and unrelated prompt are taken."""
    answer = text(row, "answer_new")
    paraphrase = full(first(row, "paraphrases"), "paraphrases[0]")
    unrelated = first(row, "unrelated")
    return Cues(
        edit=Cue(text(row, "prompt"), answer),
        equiv=(Cue(paraphrase, answer),),
        unrel=(Cue(text(unrelated, "prompt", "unrelated[0]."), text(unrelated, "answer", "unrelated[0].")),),
        subject=string(field(row, "subject"), "subject"),
    )


# ---------------------------------------------------------------------------------------------- files


def _json_list(content: str) -> list[Any]:
    rows = json.loads(content)
    if not isinstance(rows, list):
        raise ValueError(f"it holds {kind(rows)}, not a list of rows")
    return rows


def _json_lines(content: str) -> list[Any]:
    rows = []
    for number, line in enumerate(content.split("\n"), 1):  # splitlines would also cut at U+2028 inside a text
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"it is not JSON at line {number}, column {error.colno}: {error.msg}") from None
    return rows


READERS: dict[str, Reader] = {
    "zsre": Reader(_json_list, zsre),
    "counterfact": Reader(_json_list, counterfact),
    "ripple_effect": Reader(_json_list, ripple_effect),
    "fever": Reader(_json_list, fever),
    "worldfacts": Reader(_json_lines, worldfacts),
}
