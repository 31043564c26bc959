"""The page of a run, report.html: what its workdir has to show, in one file that loads nothing else."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from emsedit_jax.errors import InputError
from emsedit_jax.measure.scores import Scores
from emsedit_jax.run import items, ledger_lines, metrics, settings, storing, workdir
from emsedit_jax.run.ledger_lines import Record
from emsedit_jax.run.workdir import Workdir

T = TypeVar("T")
TEMPLATE = "report.html.j2"


class Found(NamedTuple):
    """What a workdir has of its run; what it lacks is empty."""

    config: Mapping[str, Any]  # flat
    summary: Mapping[str, Any]
    scores: Mapping[str, Scores]
    rows: Sequence[Mapping[str, Any]]  # metrics of the edit batches, in their order
    records: Sequence[Record]  # of the ledger
    lacks: Sequence[str]  # what there is to say of missing and damaged files


def run_report(path: Path) -> None:
    """Writes the page of the run in `path` anew. Raises InputError as `write` does."""
    folder = Workdir(path)
    write(folder)
    print(f"report in {folder.report}", flush=True)


def write(folder: Workdir) -> None:
    """Writes the run's page from its other files, whole or not at all; the same files give the same bytes.

    Raises:
        InputError: there is no run in the folder, its config is damaged, or the page cannot be written.
    """
    text = rendered(read(folder))
    with storing.replacing(folder.report) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read(folder: Workdir) -> Found:
    """What is there, of a run that may be finished or not. Raises InputError where there is none."""
    if folder.made_of.exists():
        raise InputError(f"{folder.path} holds edits that were merged or made into one, and no run to report on.")
    if folder.session.exists():
        raise InputError(f"{folder.path} holds edits by hand, and no run to report on; --mode=eval scores them.")
    config = dict(settings.flatten(workdir.saved_config(folder.path)))
    lacks: list[str] = []

    def piece(path: Path, reader: Callable[[Path], T], nothing: T) -> T:
        try:
            return reader(path) if path.exists() else nothing
        except InputError:
            lacks.append(f"{path.name} is damaged, or of an earlier version: what it says is left out.")
            return nothing

    summary = piece(folder.summary, lambda path: storing.read_json(path, ""), {})
    scores = piece(folder.scores, items.read, {})
    n_batches, seal = int(config.get("num_seq", 0)), summary.get("metrics_seal")
    rows = piece(folder.metrics, lambda path: edit_rows(path, n_batches, seal), [])
    records = piece(folder.ledger / ledger_lines.NAME, lambda path: ledger_lines.records(path.parent), [])
    if not folder.summary.exists():
        lacks.insert(0, "The run is not finished: this is what there is so far. The same command goes on with it.")
    elif not folder.scores.exists():
        lacks.append("There are no scores item by item (scores.json), hence no list of failures.")
    return Found(config, summary, scores, rows, records, lacks)


def edit_rows(path: Path, n_batches: int, seal: str | None) -> list[dict[str, Any]]:
    """The metrics of the edit batches, in their order; a last line that is cut off, as a killed run leaves it, is none.

    Args:
      seal: of the last row; None: the run has not come to its end, or its summary does not tell.

    Raises InputError where the file cannot be read, or is not what was written.
    """
    with storing.reading(path):
        content = path.read_bytes()
    try:
        rows, last = metrics.read(content)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    if seal not in (None, last):
        raise InputError(f"{path} is damaged: it ends before its last row.")
    found = {row.get("batch"): row for row in rows if row.get("phase") == "edit"}
    return [found[batch] for batch in range(n_batches) if batch in found]


def rendered(found: Found) -> str:
    """The page's text."""
    import jinja2

    from emsedit_jax.run import page_costs, page_failures, page_scores

    environment = jinja2.Environment(
        autoescape=True,  # facts, and what a model says of them, are strangers' text
        finalize=shown,
        loader=jinja2.PackageLoader("emsedit_jax.run"),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    parts = page_scores.parts(found) | page_failures.parts(found) | page_costs.parts(found)
    return environment.get_template(TEMPLATE).render(title=title(found), notes=notes(found), **parts)


def shown(value: Any) -> Any:
    """Text without control characters and halves of letters, which neither a page nor its file can hold."""
    if type(value) is not str:  # Markup is ours
        return value
    bad = {letter for letter in value if unicodedata.category(letter) in ("Cc", "Cs") and letter != "\n"}
    return "".join(" " if letter in bad else letter for letter in value) if bad else value


def title(found: Found) -> str:
    model = str(found.config.get("model.name_or_path", "")).rstrip("/").rpartition("/")[2] or "a language model"
    edits = found.summary.get("edits")
    return f"Editing {model}" if edits is None else f"{edits:,} fact{'s' * (edits != 1)} edited into {model}"


def notes(found: Found) -> list[str]:
    """What must be known to read the rest."""
    told = list(found.lacks)
    for role, words in (("train", "to train on"), ("eval", "to edit")):
        count = found.summary.get("skipped_rows", {}).get(role, {}).get("count", 0)
        if count:
            told.append(f"Bad rows left out of the facts {words}: {count:,}; summary.json lists them.")
    conflicts = found.summary.get("conflicts", ())
    if conflicts:
        told.append(f"Prompts that were given several answers: {len(conflicts):,}; summary.json lists them.")
    undone = sorted({number for record in found.records for number in record.undone})
    if undone:
        told.append(
            f"Batches were taken back afterwards ({', '.join(map(str, undone))}); the scores are of before that."
        )
    return told
