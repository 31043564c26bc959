"""What an edit costs after many others, and what scoring all of them costs with and without stored prefixes.

    python -m benchmarks.growth --config=configs/zsre_smollm2.py:editor=ultraedit \
        --config.dataset.valid_path=zsre_train.json --config.num_seq=400

Any config and flags of `launch.py`; its facts are edited batch after batch, without training. At 100, 1,000 and 4,000
edits (as far as there are so many) it notes the seconds an edit of the ten batches before, the memory in use, and the
seconds of scoring everything edited so far: at first sight, and again with the prefixes that `eval.prefix_store_mb` has
room for.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import command, timing
from emsedit_jax.edit.capture import prompts
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.score import score_edits
from emsedit_jax.meta import trajectory
from emsedit_jax.run import cli, resources
from emsedit_jax.run.prepare import Prepared, prepare
from emsedit_jax.types import Deltas

MARKS = (100, 1000, 4000)  # edits
LOOKED_AT = 10  # batches before a mark


def scoring_seconds(run: Prepared, deltas: Deltas, batches: int) -> dict[str, float | int]:
    """Scoring the first batches twice with a store of the config's size: at first sight, and again."""
    store = PrefixStore(run.lm.config, run.editor.sites, run.lm.params, run.config.eval.prefix_store_mb)
    model = Edited(run.lm.config, run.editor.sites, run.lm.params, deltas, store)
    found: dict[str, float | int] = {}
    for words in ("first_sight", "again"):
        hits, start = store.hits, time.perf_counter()
        list(score_edits(model, run.score_plan, range(batches)))
        found[f"{words}_s"] = round(time.perf_counter() - start, 2)
        found[f"{words}_hits"] = store.hits - hits
    return found


def grow(run: Prepared, marks: Sequence[int] = MARKS) -> list[dict[str, Any]]:
    """Edits all batches; what there is to say at each mark."""
    editor, params, size = run.editor, run.lm.params, run.config.dataset.n_edits
    deltas, state = no_edit(editor.sites), trajectory.init(editor, run.config.seed)
    seconds: list[float] = []
    found = []
    for j in range(len(run.valid_plan)):
        start = time.perf_counter()
        edit = prompts(run.lm.config, editor.sites, params, run.valid_plan.batches(j, "edit"))
        deltas, state, _ = trajectory.edit_batch(editor, params, deltas, state, edit)
        jax.block_until_ready(deltas)
        seconds.append((time.perf_counter() - start) / size)
        if (edits := (j + 1) * size) in marks:
            late = seconds[-LOOKED_AT:] if j >= LOOKED_AT else seconds[1:]
            mark = {"edits": edits, "seconds_an_edit": round(statistics.median(late), 4), "rss_mb": resources.rss_mb()}
            found.append(mark | {"scoring": scoring_seconds(run, deltas, j + 1)})
            print(mark, file=sys.stderr, flush=True)
    return found


def main(argv: Sequence[str]) -> None:
    _, given = command.read(argv, command.parser(__doc__))
    with contextlib.redirect_stdout(sys.stderr):
        run = prepare(given.config, training=False)
    timing.report("growth", batch=run.config.dataset.n_edits, marks=grow(run))


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
