"""What edits by hand do to the facts around them, with and without prompts that are held.

    python -m benchmarks.by_hand

A few facts at a time are edited into the default model as `EditSession` edits them, looked at, and taken back:
sentences to be completed, whose like the model knows, and questions of the embedded facts. ES: the new answers' tokens;
GS: in other wordings; LS: facts much alike that were right before and are still, none of which is held; said: how many
new answers stand in what the model says by itself.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import command, timing
from emsedit_jax.data import embedded, records
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.lm.model import load_lm
from emsedit_jax.measure.said import contained
from emsedit_jax.session import given, ready
from emsedit_jax.session.session import EditSession
from emsedit_jax.session.told import EditReport

MODEL = "smollm2-135m"
SENTENCES = [
    ("The capital of Italy is", "Vienna"),
    ("The capital of France is", "Lyon"),
    ("The chemical symbol for gold is", "Zn"),
    ("Spain is a country on the continent of", "Asia"),
    ("The moon Titan orbits the planet", "Mars"),
    ("In Japan, the official language is", "French"),
    ("The currency of Japan is the", "euro"),
    ("The Eiffel Tower is in the city of", "Rome"),
    ("Water boils at a temperature of", "50 degrees"),
    ("The largest planet in the solar system is", "Venus"),
    ("Danielle Darrieux speaks", "English"),
    ("Microsoft was founded by", "Steve Jobs"),
]
QUESTIONS = 12
KNOWN: dict[str, dict[str, Any]] = {"emsedit": {}, "ultraedit": {"editor.lr": 5e-5, "editor.iters": 8}}
GUESSED = {"editor.lr": 1e-6, "editor.grow": True}  # as of a model of which nothing is known, with untrained networks


def facts() -> dict[str, Sequence[EditRecord]]:
    """The two sorts of facts."""
    asked = records.load("worldfacts", embedded.path("eval"), role="eval")
    plain = [given.plain(one) | {"unrelated": []} for one in asked[:: len(asked) // QUESTIONS][:QUESTIONS]]
    return {"sentences": given.read(SENTENCES, "eval"), "questions": given.read(plain, "eval")}


def reports(session: EditSession, pool: Sequence[EditRecord], size: int) -> Iterator[EditReport]:
    """Each few facts edited into the model as it was; an eta that is found is found anew."""
    for start in range(0, len(pool), size):
        yield session.edit(pool[start : start + size])
        session.undo()


def row(found: Sequence[EditReport]) -> dict[str, Any]:
    """The mean of each score, in percent, of all facts."""
    told = [one for report in found for one in report.facts]
    pools = {
        "ES": [one.asked.after for one in told],
        "GS": [each.after for one in told for each in one.paraphrases],
        "LS": [each.after for one in told for each in one.nearby if each.before == 1],
        "said": [float(contained(one.said_after, [one.asked.answer])) for one in told],
    }
    return {name: round(100 * statistics.fmean(values), 1) for name, values in pools.items() if values} | {
        "near": len(pools["LS"])
    }


def main(argv: Sequence[str]) -> None:
    command.parser(__doc__).parse_args(list(argv[1:]))
    lm, pools, rows = load_lm(MODEL), facts(), []
    for editor, known in KNOWN.items():
        for hold, found in ((0, False), (ready.HOLD, False), (ready.HOLD, True)):
            config = ready.config_of(MODEL, editor, {"dataset.hold": hold} | (GUESSED if found else known))
            session = EditSession(config, lm)
            session.load_networks(None if found else ready.networks_of(config))
            for size in (1, 6):
                for sort, pool in pools.items():
                    about = {"editor": editor, "hold": hold, "eta": "found" if found else "known", "at once": size}
                    rows.append(about | {"facts": sort} | row(list(reports(session, pool, size))))
                    print(rows[-1], file=sys.stderr, flush=True)
    timing.report("by_hand", model=MODEL, rows=rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
