"""What a ledger of many batches costs: to open with its chain checked, to use a batch of, and on the disk.

    python -m benchmarks.ledger [--batches=1000]

Batches of ten facts, in the shapes that `configs/quickstart.py` edits of SmolLM2-135M: four steps, each with so many
rows at 14 sites of 576 x 1536. All records are written as a run writes them; the files of factors are second names of
one, which opening does not look at. `open_s`: the ledger read, every hash of its chain computed again, and held
against what `edits.safetensors` says of it; the median of five. `use_s`: one batch's file hashed, mapped and added to
the edits; the median of all of those between two snapshots. `copied_mb`: the memory that hashing and mapping take.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import command, timing
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import anchor, cli, edits, history, ledger, ledger_files
from emsedit_jax.run.ledger_lines import mark
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import SiteGroup, Sites

LAYERS, SIDES = range(23, 30), ("gate", "up")
STEPS, FACTS, ROWS = 4, 10, 16
OPENED = 5


def sites_of(k: int, v: int) -> Sites:
    """Sites like those of the quickstart."""
    places = [(layer, side) for side in SIDES for layer in LAYERS]
    names = tuple(f"model.layers.{layer}.mlp.{side}_proj" for layer, side in places)
    modules = tuple(f"mlp.{side}" for _, side in places)
    return (SiteGroup(k, v, tuple(layer for layer, _ in places), modules, names),)


def fill(folder: Workdir, sites: Sites, batches: int, rows: int = ROWS) -> ledger.Ledger:
    """Writes a ledger of so many batches, and edits that say how far it went."""
    made, rng = ledger.create(folder.ledger, Identity("smollm2-135m", "0" * 16), sites), np.random.default_rng(0)

    def part(width: int) -> np.ndarray:
        return rng.normal(0, 1e-4, (len(sites[0].layers), rows, width)).astype(np.float32)

    first = made.path / ledger_files.name_of(1)
    digest = ledger_files.write(first, [[(part(sites[0].k), part(sites[0].v))] for _ in range(STEPS)])
    for number in range(1, batches + 1):
        name = ledger_files.name_of(number)
        if number > 1:
            os.link(first, made.path / name)
        made.append(ledger.EDIT, [_fact(number, i) for i in range(FACTS)], {"ES": 87.5, "GS": 62.5}, name, digest)
    edits.save(folder.edits, sites, no_edit(sites), made.base, mark(made.records))
    return made


def _fact(number: int, i: int) -> dict[str, str]:
    prompt = f"What university did the person number {i} of batch {number} attend before they moved?"
    return {"id": f"zsre_eval.json row {10 * number + i}", "subject": "the person", "prompt": prompt, "answer": "Lyon"}


def measure(folder: Workdir, used: int) -> dict[str, Any]:
    """What opening costs, and using the first batches."""
    found, seconds = anchor.read(folder), []
    for _ in range(OPENED):
        start = time.perf_counter()
        anchor.read(folder)
        seconds.append(time.perf_counter() - start)
    told: dict[str, Any] = {"batches": len(found.records), "open_s": round(statistics.median(seconds), 3)}
    tracemalloc.start()
    ledger_files.load(found, found.records[0])
    told["copied_mb"] = round(tracemalloc.get_traced_memory()[1] / 1e6, 2)
    tracemalloc.stop()
    now, seconds = no_edit(found.sites), []
    for record in found.records[: used + 1]:
        start = time.perf_counter()
        now = jax.block_until_ready(history.add(found.sites, now, ledger_files.load(found, record)))
        seconds.append(time.perf_counter() - start)
    told["use_s"] = round(statistics.median(seconds[1:]), 4)  # the first one compiles
    records_mb = (found.path / ledger.NAME).stat().st_size / 1e6
    whole_mb = 4e-6 * sum(len(group.layers) * group.k * group.v for group in found.sites)
    batch_mb = found.records[0].bytes / 1e6
    return told | {"records_mb": round(records_mb, 2), "batch_mb": round(batch_mb, 2), "whole_mb": round(whole_mb, 2)}


def main(argv: Sequence[str]) -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--batches", type=int, default=1000)
    given = parser.parse_args(argv[1:])
    cli.settle()
    with tempfile.TemporaryDirectory() as path:
        folder = Workdir(Path(path))
        fill(folder, sites_of(576, 1536), given.batches)
        timing.report("ledger", **measure(folder, min(given.batches, 100) - 1))


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
