"""Of a run's page: facts in the model's own words before and after, and the failures that are worth reading."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emsedit_jax.measure.said import contained
from emsedit_jax.run.failures import SHOWN, Failure, Failures, failures

if TYPE_CHECKING:
    from emsedit_jax.run.page import Found

SORTS = {  # of failures, by score: a title, what is told beneath it, and what the edited fact is to such a prompt
    "ES": ("Facts that did not take", "Edited prompts whose new answer is not right in full.", "edited as"),
    "GS": (
        "Wordings that do not follow",
        "The edited prompt is answered right in full, this wording not.",
        "edited as",
    ),
    "LS": ("Unrelated facts that broke", "Right in full before editing, and no longer.", "asked beside"),
}
AT_ONCE = 4  # of a sort; the others are there for who asks
Pieces = list[tuple[str, str]]


def parts(found: Found) -> dict[str, Any]:
    """What the template shows of examples and failures."""
    return {"examples": [_example(one) for one in found.summary.get("examples", [])], "failures": _failures(found)}


def _example(one: Mapping[str, str]) -> dict[str, Any]:
    """A fact that is shown, with what differs between the model's two answers."""
    before, after = marked(one["before"], one["after"])
    return {
        "prompt": one["prompt"],
        "wanted": one["target"],
        "before": before,
        "after": after,
        "said_before": contained(one["before"], [one["target"]]),
        "said_after": contained(one["after"], [one["target"]]),
    }


def marked(before: str, after: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces, word by word: what they share ("same"), what is gone ("del") and what is new ("ins")."""
    old, new = before.split(), after.split()
    pieces: tuple[Pieces, Pieces] = [], []
    for kind, i, k, j, n in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for side, words, changed in ((0, old[i:k], "del"), (1, new[j:n], "ins")):
            if words:
                pieces[side].append(("same" if kind == "equal" else changed, " ".join(words)))
    return pieces


# ------------------------------------------------------------------------------------------ failures


def _failures(found: Found) -> list[dict[str, Any]]:
    """The worst of each sort that there could be; also those of which there is none."""
    edits = found.scores.get("edited", {}).get("ES")
    order = {item: place for place, item in enumerate(edits.items, start=1)} if edits else {}
    facts = {str(row.get("id")): row for record in found.records for row in record.rows}
    sorts = []
    for name, those in failures(found.scores).items():
        title, words, fact_words = SORTS[name]
        cases = [_case(one, text, facts.get(one.fact, {}), order) for one, text in _worst(name, those, found, facts)]
        if those.of:
            sorts.append(
                {"title": title, "words": words, "fact_words": fact_words, "count": len(those.found), "of": those.of}
                | {"cases": cases[:AT_ONCE], "more": cases[AT_ONCE:]}
            )
    return sorts


def _worst(
    name: str, those: Failures, found: Found, facts: Mapping[str, Mapping[str, Any]]
) -> list[tuple[Failure, Mapping[str, Any]]]:
    """The failures to show, each with its prompt, its answer and what was said, as far as they are known.

    The summary tells them; that of an earlier version does not, and the ledger has the edited prompts alone.
    """
    told = found.summary.get("failures", {}).get(name)
    if told is None:
        return [(one, facts.get(one.item, {}) if name == "ES" else {}) for one in those.found[:SHOWN]]
    known = {one.item: one for one in those.found}
    return [(known[text["item"]], text) for text in told if text["item"] in known]


def _case(one: Failure, text: Mapping[str, Any], fact: Mapping[str, Any], order: Mapping[str, int]) -> dict[str, Any]:
    """One failure as it is shown; with the edited fact it belongs to, where that is another prompt."""
    prompt = text.get("prompt")
    return {
        "prompt": prompt,
        "wanted": text.get("answer"),
        "said": text.get("said"),
        "fact": fact.get("prompt") if fact.get("prompt") != prompt else None,
        "fact_answer": fact.get("answer"),
        "before": _share(one.before),
        "after": _share(one.after),
        "item": one.item,
        "edit": order.get(one.fact),
        "others": text.get("times", 1) - 1,
    }


def _share(value: float) -> str | None:
    return None if value != value else f"{100 * value:.0f} %"
