"""The data sets: how each is stored, and what one row of it asks and answers; a new one is a function and a row.

A file is read as training or as evaluation rows by its role alone, never by its name. Where a data set is read
otherwise than by the published program, its function says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from emsedit_jax.data.cues import Asked, Cue, Cues, Draw, Role
from emsedit_jax.data.easyedit import easyedit
from emsedit_jax.data.fields import RowFault, entries, field, first, full, string, text, texts
from emsedit_jax.data.own import facts

__all__ = ["CRITERIA", "READERS", "Asked", "Cue", "Cues", "Draw", "Reader", "Role"]

CRITERIA = (  # what RippleEdits asks of an edit's consequences
    "Logical_Generalization",
    "Compositionality_I",
    "Compositionality_II",
    "Subject_Aliasing",
    "Relation_Specificity",
    "Forgetfulness",
)


class Reader(NamedTuple):
    """How a data set is stored, and the function from a row of it to its facts."""

    forms: tuple[str, ...]  # keys of `files.FORMS`: where there are several, a file's suffix says which
    cues: Callable[[dict, Role, Draw], Sequence[Cues]]  # raises RowFault


def zsre(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """zsRE as in MEND: the unrelated question is stored without its question mark, the others with it.

    A row may lack its `subject`, which nothing depends on.
    """
    answer = text(row, "ans")
    edit, equiv = Cue(text(row, "src"), answer), Cue(text(row, "rephrase"), answer)
    unrel = Cue(text(row, "loc") + "?", text(row, "loc_ans"))
    return [Cues(edit, (equiv,), (unrel,), _subject(row) if "subject" in row else "")]


def counterfact(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """CounterFact: the new answer has to beat the true one, and the true one the new one on neighbours.

    To train on, the first paraphrase and the first neighbour are taken; to evaluate with, all of them.
    """
    where = "requested_rewrite."
    rewrite = field(row, "requested_rewrite")
    prompt, subject = _with_subject(rewrite, where)
    new, true = (text(field(rewrite, name, where), "str", f"{where}{name}.") for name in ("target_new", "target_true"))

    def prompts(name: str) -> list[str]:
        return texts(row, name) if role == "eval" else [full(first(row, name), f"{name}[0]")]

    equiv = tuple(Cue(prompt, new, versus=true) for prompt in prompts("paraphrase_prompts"))
    unrel = tuple(Cue(prompt, true, versus=new) for prompt in prompts("neighborhood_prompts"))
    return [Cues(Cue(prompt, new, versus=true), equiv, unrel, subject)]


def _with_subject(rewrite: Any, where: str) -> tuple[str, str]:
    """(prompt with the subject in its place, subject). Raises: RowFault unless there is one place for it."""
    template, subject = text(rewrite, "prompt", where), text(rewrite, "subject", where)
    if template.count("{}") != 1:
        raise RowFault(f"field '{where}prompt' does not hold {{}} once, in the subject's place")
    return template.replace("{}", subject), subject


def ripple_effect(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """RippleEdits, in two forms that may be mixed in a file: a row with `rephrase_prompt` is in the training form.

    In the evaluation form the first usable alias is the paraphrase and the first usable specificity prompt the
    unrelated one; what a row has none of, the edit itself stands for, and the fact says so. The published program
    would take a row with `locality_prompt` but no `rephrase_prompt` for one without either; here that is a fault. It
    asks no further questions; here all items of all criteria are asked in evaluation.
    """
    edit, subject = Cue(text(row, "prompt"), text(row, "target_new")), _subject(row)
    if "rephrase_prompt" in row or "locality_prompt" in row:
        equiv = Cue(text(row, "rephrase_prompt"), edit.answer)
        unrel = Cue(text(row, "locality_prompt"), text(row, "locality_ground_truth"))
        return [Cues(edit, (equiv,), (unrel,), subject)]
    alias = next((prompt for prompt, _, _ in _items(row, "Subject_Aliasing")), None)
    specific = _specific(row, edit.answer)
    equiv = edit if alias is None else Cue(alias, edit.answer)
    borrowed = tuple(kind for kind, own in (("equiv", alias), ("unrel", specific)) if own is None)
    asked = tuple(_consequences(row)) if role == "eval" else ()
    return [Cues(edit, (equiv,), (specific or edit,), subject, asked, borrowed)]


def _items(row: dict, name: str) -> Iterator[tuple[str, Any, str]]:
    """(prompt, item, path to it) of the field's items that have a prompt; a row without the field has none."""
    for m, item in enumerate(entries(row, name) if name in row else []):
        where = f"{name}[{m}]."
        prompt = string(field(item, "prompt", where), where + "prompt")
        if prompt.strip():
            yield prompt, item, where


def _specific(row: dict, answer: str) -> Cue | None:
    """The first specificity item with a prompt and any targets; where they are all blank, with the edit's answer."""
    for prompt, item, where in _items(row, "Relation_Specificity"):
        if entries(item, "targets", where):
            return Cue(prompt, next(iter(_filled(item, "targets", where)), answer))
    return None


def _consequences(row: dict) -> Iterator[Asked]:
    """Every item with a prompt and a target that is not blank, criterion after criterion."""
    for criterion in CRITERIA:
        for prompt, item, where in _items(row, criterion):
            if targets := _filled(item, "targets", where):
                yield Asked(criterion, prompt, tuple(targets))


def _filled(row: Any, name: str, where: str = "") -> list[str]:
    """The texts of a list that are not blank."""
    said = [string(entry, f"{where}{name}[{m}]") for m, entry in enumerate(entries(row, name, where))]
    return [entry for entry in said if entry.strip()]


def mquake(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """MQuAKE: a fact for each rewrite, its question the paraphrase; nothing is unrelated to it.

    In evaluation the questions over several hops, and those of the single hops on the way, are asked after the row's
    last fact.
    """
    first(row, "requested_rewrite")
    found = []
    for m, rewrite in enumerate(entries(row, "requested_rewrite")):
        where = f"requested_rewrite[{m}]."
        prompt, subject = _with_subject(rewrite, where)
        answer = text(field(rewrite, "target_new", where), "str", f"{where}target_new.")
        found.append(Cues(Cue(prompt, answer), (Cue(text(rewrite, "question", where), answer),), (), subject))
    if role == "eval":
        found[-1] = found[-1]._replace(asked=(*_hops(row),))
    return found


def _hops(row: dict) -> Iterator[Asked]:
    answers = _with_aliases(row, "new_answer", "new_answer_alias")
    for question in texts(row, "questions"):
        yield Asked("multi_hop", question, answers)
    for m, hop in enumerate(entries(row, "new_single_hops")):
        where = f"new_single_hops[{m}]."
        yield Asked("single_hop", text(hop, "question", where), _with_aliases(hop, "answer", "answer_alias", where))


def _with_aliases(row: Any, name: str, aliases: str, where: str = "") -> tuple[str, ...]:
    """The field's text and its other names, which may be missing."""
    return (text(row, name, where), *(_filled(row, aliases, where) if aliases in row else ()))


def fever(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """FEVER claims to be given another verdict; one of several paraphrases is drawn.

    The published program draws anew each time that an item is read; here a row keeps its draw.
    """
    verdict, paraphrases = text(row, "alt"), texts(row, "equiv_prompt")
    edit, equiv = Cue(text(row, "prompt"), verdict), Cue(paraphrases[draw(len(paraphrases))], verdict)
    unrel = Cue(text(row, "unrel_prompt"), text(row, "unrel_ans"))
    return [Cues(edit, (equiv,), (unrel,), subject="")]


def worldfacts(row: dict, role: Role, draw: Draw) -> list[Cues]:
    """The embedded facts: `answer_new` is what to write; the first paraphrase and unrelated prompt are taken."""
    answer = text(row, "answer_new")
    equiv = Cue(full(first(row, "paraphrases"), "paraphrases[0]"), answer)
    unrelated, where = first(row, "unrelated"), "unrelated[0]."
    unrel = Cue(text(unrelated, "prompt", where), text(unrelated, "answer", where))
    return [Cues(Cue(text(row, "prompt"), answer), (equiv,), (unrel,), _subject(row))]


def _subject(row: dict) -> str:
    """The field `subject`, which may be blank. Raises: RowFault."""
    return string(field(row, "subject"), "subject")


READERS: dict[str, Reader] = {
    "zsre": Reader(("json",), zsre),
    "counterfact": Reader(("json",), counterfact),
    "ripple_effect": Reader(("json",), ripple_effect),
    "fever": Reader(("json",), fever),
    "mquake": Reader(("json",), mquake),
    "easyedit": Reader(("requests",), easyedit),
    "worldfacts": Reader(("jsonl",), worldfacts),
    "facts": Reader(("jsonl", "csv"), facts),
}
