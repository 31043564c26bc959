"""Every data set on one small model: 20 x 10 facts each, all scores before and after, general ability beside them.

    python -m benchmarks.datasets --data=FOLDER

FOLDER holds a folder for each data set, with `<data set>_train*.json` and `<data set>_eval*.json` in it (of several the
first by name), `mquake/mquake_cf.json`, and `ability/` with the files of the ability tasks. Each data set is one run of
`launch.py` in a folder of its own in `--out`: its command is printed, and broken off, it is gone on with. EMSEdit
trains on the first 200 training rows and edits the first 200 facts of the evaluation rows; MQuAKE, which has no
training rows, trains on later rows of its one file. General ability is asked for beside zsRE, before, after every 10
batches and after all.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cells, command
from emsedit_jax.errors import InputError, near
from emsedit_jax.run import cli

CONFIGS = {  # data set -> its part of a config's name
    "zsre": "zsre",
    "counterfact": "counterfact",
    "ripple_effect": "ripple",
    "fever": "fever",
    "mquake": "mquake",
}
ROWS, BATCH = 200, 10
COLUMNS = {  # score -> head of its column
    "ES": "ES", "GS": "GS", "LS": "LS", "ES.exact": "said, exact", "ES.contained": "said, contained",
    "GS.contained": "other wording, contained", "LS.same": "unrelated, same token", "LS.kl": "unrelated, KL",
    "fluency": "fluency", "perplexity": "perplexity",
}  # fmt: skip


def files(data: Path, name: str) -> tuple[Path, Path]:
    """The files of training and evaluation rows. Raises InputError where there are none."""
    if name == "mquake":
        path = data / name / "mquake_cf.json"
        return path, path
    found = []
    for role in ("train", "eval"):
        there = sorted((data / name).glob(f"{name}_{role}*.json"), key=lambda path: path.stem)
        if not there:
            raise InputError(f"{data / name} holds no {name}_{role}*.json; put it there, or leave the data set out.")
        found.append(there[0])
    return found[0], found[1]


def flags(name: str, data: Path, seed: int = 0) -> list[str]:
    """The command line of a data set's run, without the program's name and the workdir."""
    train, valid = files(data, name)
    found = [
        f"--config=configs/{CONFIGS[name]}_smollm2.py",
        f"--config.dataset.train_path={train}",
        f"--config.dataset.valid_path={valid}",
        f"--config.num_seq={ROWS // BATCH}",
        f"--config.dataset.n_edits={BATCH}",
        f"--config.seed={seed}",
    ]
    if name == "mquake":
        found += [f"--config.dataset.rows=:{ROWS}", f"--config.dataset.train_rows={ROWS}:"]
    if name == "zsre" and (data / "ability").is_dir():
        found += [f"--config.eval.ability_path={data / 'ability'}", "--config.eval.glue_step=10"]
    return found


def table(found: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """The scores that all data sets have, before and after each, in markdown."""
    yield f"| {ROWS} edits | | {' | '.join(COLUMNS.values())} | minutes |"
    yield f"|---|---|{'---|' * (len(COLUMNS) + 1)}"
    for name, summary in found.items():
        for row, words in (("unedited", "before"), ("edited", "after")):
            scores = summary["scores"][row]
            cells_of = " | ".join(_cell(name, scores.get(name)) for name in COLUMNS)
            minutes = f"{summary['seconds']['total'] / 60:.1f}" if row == "edited" else ""
            yield f"| {name if row == 'unedited' else ''} | {words} | {cells_of} | {minutes} |"


def others(found: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """The scores that are a data set's own, with intervals and the number of items."""
    yield "| data set | score | items | before | after |"
    yield "|---|---|---|---|---|"
    for name, summary in found.items():
        for score in summary["scores"]["edited"]:
            if score not in COLUMNS and score.split(".")[-1] not in ("first", "middle", "last"):
                items = summary["items"]["edited"][score]
                sides = [_with_interval(summary, row, score) for row in ("unedited", "edited")]
                yield f"| {name} | {score} | {items} | {' | '.join(sides)} |"


def _cell(name: str, value: float | None) -> str:
    digits = 2 if name in ("LS.kl", "fluency") else 1
    return "-" if value is None else f"{value:.{digits}f}"


def _with_interval(summary: Mapping[str, Any], row: str, score: str) -> str:
    if summary["scores"][row].get(score) is None:
        return "-"
    low, high = summary["intervals"][row][score]
    digits = 2 if score.endswith(".mcc") else 1
    return f"{summary['scores'][row][score]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def parser() -> argparse.ArgumentParser:
    found = command.parser(__doc__)
    found.add_argument("--data", type=Path, required=True, help="folder with a folder for each data set")
    found.add_argument("--only", default="", metavar="NAMES", help="some data sets, such as zsre,fever")
    found.add_argument("--out", type=Path, default=Path("runs/datasets"), help="folder of the runs (%(default)s)")
    found.add_argument("--seed", type=int, default=0)
    return found


def main(argv: Sequence[str]) -> None:
    given = parser().parse_args(argv[1:])
    names = given.only.split(",") if given.only else list(CONFIGS)
    for name in names:
        if name not in CONFIGS:
            raise InputError(f"no data set {name!r} ({', '.join(CONFIGS)}).{near(name, CONFIGS)}")
    commands = {name: flags(name, given.data, given.seed) for name in names}
    cli.settle()
    found = {}
    for name, line in commands.items():
        print(f"\npython launch.py {shlex.join(line)}", flush=True)
        summary = cells.finished(given.out / name, line)
        if summary is not None:
            found[name] = summary
    print()
    print("\n".join([*table(found), "", *others(found)]), flush=True)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
