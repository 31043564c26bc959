"""All editors on one small model, each with an initial eta chosen by the same small search on training rows.

    python -m benchmarks.editors --data=FOLDER

FOLDER holds `zsre/zsre_{train,eval}.json` and `counterfact/counterfact_{train,eval}.json`, or files named by --files.
Every cell is a run of its own in `--out`: broken off, the command goes on with the first cell that is missing. The
search edits rows 200 to 399 of zsRE's training file after training on rows 0 to 199; an editor's eta is the one with
the best mean of ES, GS and LS there. (RLEdit looks back on 2 batches in the search and on 10 in the table: the search
would take an hour longer for the one update of its networks, which moves an eta by 1e-5.) The table edits the first 200
evaluation rows of each data set in file order, in 20 batches of 10. `--choose` prints only what the search chose, as
`configs/<model>.py` holds it; `--known` makes the table with the etas of that file, without a search. `--model` takes
another of the small models, `--editors` some lines of the table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import cells, command
from configs import common, gemma3, smollm2
from emsedit_jax.errors import InputError, near
from emsedit_jax.run import cli

RIDGE = (1e-4, 3e-4, 1e-3, 3e-3)
NORMALISED = (1e-5, 3e-5, 1e-4, 3e-4)
PRODUCT = (1e-5, 3e-5, 1e-4, 3e-4)
ROWS, BATCH = 200, 10
NAMES = ("ES", "GS", "LS")


class Model(NamedTuple):
    """What is known of a model of `configs/`."""

    etas: Mapping[tuple[str, int], float]  # (editor, edit steps) -> its eta in the configs
    scale: float = 1.0  # of the searched etas


MODELS = {"smollm2": Model(smollm2.ETA), "gemma3": Model(gemma3.ETA, scale=0.1)}


class Row(NamedTuple):
    """One line of the table."""

    title: str
    editor: str
    iters: int
    etas: tuple[float, ...]  # of the search, to be scaled for the model
    trains: bool = True


TABLE = (
    Row("UltraEdit", "ultraedit", 1, NORMALISED, trains=False),
    Row("UltraEdit^2", "ultraedit", 2, NORMALISED, trains=False),
    Row("MEND", "mend", 1, PRODUCT),
    Row("MALMEN", "malmen", 1, RIDGE),
    Row("MALMEN^2", "malmen", 2, RIDGE),
    Row("RLEdit", "rledit", 1, RIDGE),
    Row("RLEdit^2", "rledit", 2, RIDGE),
    Row("EMSEdit", "emsedit", 2, RIDGE),
    Row("EMSEdit untrained", "emsedit", 2, RIDGE, trains=False),
)


class Cell(NamedTuple):
    """One run: a line of the table at one eta, on the rows of the search or of a data set's table."""

    row: Row
    eta: float
    dataset: str
    search: bool

    @property
    def name(self) -> str:
        """Its folder."""
        trained = "" if self.row.trains or self.row.editor == "ultraedit" else "-untrained"
        where = "search" if self.search else self.dataset
        return f"{where}-{self.row.editor}{self.row.iters}{trained}-{self.eta:g}"


class Bench(NamedTuple):
    """What all cells share."""

    model: str  # of MODELS
    files: Mapping[str, tuple[str, str]]  # data set -> (training rows, evaluation rows)
    out: Path  # folder of the cells
    seed: int = 0
    accept_terms: bool = False


def flags(cell: Cell, bench: Bench) -> list[str]:
    """The command line of a cell, without the program's name."""
    train, valid = bench.files[cell.dataset]
    row = cell.row
    found = [
        f"--config=configs/{cell.dataset}_{bench.model}.py:editor={row.editor},iters={row.iters}",
        f"--config.dataset.train_path={train}",
        f"--config.dataset.valid_path={train if cell.search else valid}",
        f"--config.dataset.rows={f'{ROWS}:{2 * ROWS}' if cell.search else f':{ROWS}'}",
        f"--config.dataset.train_rows=:{ROWS}",
        f"--config.num_seq={ROWS // BATCH}",
        f"--config.dataset.n_edits={BATCH}",
        f"--config.editor.lr={cell.eta!r}",
        f"--config.seed={bench.seed}",
        "--config.eval.examples=0",
        "--noconfig.eval.further",
    ]
    if bench.accept_terms:
        found.append("--config.model.accept_terms")
    if cell.search:
        found.append("--config.eval.final_only")
        found += ["--config.editor.back_depth=2"] if row.editor == "rledit" else []
    if row.editor in ("malmen", "mend"):
        found.append("--config.editor.max_steps=-1")  # all training rows, as the others
    return found if row.trains or row.editor == "ultraedit" else [*found, "--config.editor.n_epochs=0"]


def run(cell: Cell, bench: Bench) -> dict[str, Any] | None:
    """The cell's summary, from its folder where it is finished; None where the eta makes the edits diverge."""
    return cells.finished(bench.out / cell.name, flags(cell, bench))


def mean(summary: dict[str, Any] | None) -> float:
    """What the search looks for: the mean of the three scores after editing."""
    return -1.0 if summary is None else statistics.mean(summary["scores"]["edited"][name] for name in NAMES)


def searched(row: Row, model: str) -> tuple[float, ...]:
    """The etas that the search tries for an editor on this model."""
    return tuple(float(f"{eta * MODELS[model].scale:.0e}") for eta in row.etas)


def choose(row: Row, bench: Bench) -> float:
    """The eta of the best cell. Raises InputError where all diverged."""
    found = {eta: mean(run(Cell(row, eta, "zsre", search=True), bench)) for eta in searched(row, bench.model)}
    if max(found.values()) < 0:
        raise InputError(f"{row.title} diverged with every eta of {tuple(found)}: try smaller ones.")
    return max(found, key=lambda eta: found[eta])


def lines(dataset: str, chosen: Mapping[Row, float], bench: Bench) -> Iterator[str]:
    """The data set's table in markdown, with the chosen eta of each row."""
    yield f"| {dataset}, {ROWS} edits | eta | ES | GS | LS | training, s per edit | editing, s per edit |"
    yield "|---|---|---|---|---|---|---|"
    unedited = None
    for row, eta in chosen.items():
        summary = run(Cell(row, eta, dataset, search=False), bench)
        if summary is None:
            yield f"| {row.title} | {eta:g} | diverged | | | | |"
            continue
        if unedited is None:
            unedited = summary["scores"]["unedited"]
            yield f"| unedited | | {' | '.join(f'{unedited[name]:.1f}' for name in NAMES)} | | |"
        scores, seconds = summary["scores"]["edited"], summary["seconds"]
        trained = f"{seconds['train'] / summary['trained_on']:.3f}" if summary["trained_on"] else "-"
        words = " | ".join(f"{scores[name]:.1f}" for name in NAMES)
        yield f"| {row.title} | {eta:g} | {words} | {trained} | {seconds['edit'] / ROWS:.3f} |"


def wanted(titles: str) -> list[Row]:
    """The rows of the table with these titles, apart by commas; all for none. Raises InputError for an unknown one."""
    known = {row.title: row for row in TABLE}
    for title in filter(None, titles.split(",")):
        if title not in known:
            raise InputError(f"no editor {title!r} in the table ({', '.join(known)}).{near(title, known)}")
    return [row for row in TABLE if not titles or row.title in titles.split(",")]


def parser() -> argparse.ArgumentParser:
    found = command.parser(__doc__)
    found.add_argument("--model", choices=MODELS, default="smollm2", help="model of configs/ (%(default)s)")
    found.add_argument("--accept-terms", action="store_true", help="the model's terms of use are accepted (gemma3)")
    found.add_argument("--data", type=Path, help="folder with the data sets")
    found.add_argument("--files", nargs=4, metavar=("ZSRE_TRAIN", "ZSRE_EVAL", "CF_TRAIN", "CF_EVAL"))
    found.add_argument("--editors", default="", metavar="TITLES", help="lines of the table, such as MEND,EMSEdit")
    found.add_argument("--out", type=Path, help="folder of the cells (runs/editors-MODEL)")
    found.add_argument("--seed", type=int, default=0)
    only = found.add_mutually_exclusive_group()
    only.add_argument("--choose", action="store_true", help="only search, and print the etas")
    only.add_argument("--known", action="store_true", help="no search: the etas of configs/MODEL.py")
    return found


def main(argv: Sequence[str]) -> None:
    given = parser().parse_args(argv[1:])
    if given.files is None and given.data is None:
        raise InputError("name the data with --data=FOLDER, or with --files and four paths.")
    names = given.files or [
        str(given.data / name / f"{name}_{role}.json") for name in ("zsre", "counterfact") for role in ("train", "eval")
    ]
    files = {"zsre": (names[0], names[1]), "counterfact": (names[2], names[3])}
    out = given.out or Path(f"runs/editors-{given.model}")
    bench = Bench(given.model, files, out, given.seed, given.accept_terms)
    rows = wanted(given.editors)
    cli.settle()
    if given.known:
        chosen = {row: common.eta(MODELS[given.model].etas, row.editor, row.iters) for row in rows}
    else:
        chosen = {row: choose(row, bench) for row in rows}
    print("\netas")
    for row, eta in chosen.items():
        if row.trains or row.editor == "ultraedit":  # (an untrained one has the other's eta in the configs)
            print(f'    ("{row.editor}", {row.iters}): {eta:g},  # {row.title}')
    for dataset in () if given.choose else files:
        print()
        print("\n".join(lines(dataset, chosen, bench)), flush=True)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
