"""Whether a folder's edits and its ledger go together: what was written along with the ledger says how far it went.

By itself a ledger that was cut off behind a line looks whole. And a program that dies as it takes batches back has
written that down, but not yet the edits without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import arrays, edits, history, ledger, storing
from emsedit_jax.run.ledger import Ledger
from emsedit_jax.run.ledger_lines import NO_LEDGER, Mark, mark
from emsedit_jax.run.prepare import say
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, Sites

REPLAY = "--mode=replay makes it of the ledger"


def read(folder: Workdir) -> Ledger:
    """The folder's ledger; records that others of its files know of count as damaged where they are gone.

    Raises InputError where there is none, its first line is damaged, or it is not the one that those files go with.
    """
    found = ledger.read(folder.ledger)
    _compare(folder, found)
    return found


def check_present(folder: Workdir) -> None:
    """Cheap, so that it can be asked before a model is loaded. Raises InputError where the file of edits is missing."""
    if not folder.edits.is_file() and _has_ledger(folder):
        raise InputError(f"{folder.edits} is missing; {REPLAY}.")
    edits.check_present(folder.edits)


def load(folder: Workdir, sites: Sites, base: Identity) -> Deltas:
    """The edits in force in the folder: those of its file, or made of the ledger where that went on without the file.

    What the ledger lost is told; the file has it all the same.

    Raises InputError as `edits.load` does, and where file and ledger do not go together.
    """
    deltas = edits.load(folder.edits, sites, base, REPLAY if _has_ledger(folder) else "run the edits again")
    there = _of_edits(folder.edits)
    if not _has_ledger(folder):
        if there != NO_LEDGER:
            say("warning", f"{folder.ledger} is gone: its edits are in force, but none can be taken back")
        return deltas
    try:
        found = ledger.read(folder.ledger)
    except InputError as error:
        say("warning", f"{error} Its edits are in force, but none can be taken back")
        return deltas
    if there is None:
        raise InputError(f"{folder.edits} does not say how far its ledger went; {_anew(folder.edits)}.")
    _compare(folder, found)
    if found.lost:
        say("warning", found.lost)
    if len(found.records) <= there.records:
        return deltas
    ledger.check_base(found, base)
    if found.sites != sites:
        raise InputError(f"{found.path} holds edits of other layers than {folder.edits}; name another --workdir.")
    say("warning", f"{behind(folder, found)}; the edits are made of the ledger (--mode=replay writes them)")
    return history.deltas(found)


def _has_ledger(folder: Workdir) -> bool:
    return (folder.ledger / ledger.NAME).is_file()


def behind(folder: Workdir, found: Ledger) -> str:
    """What to say where the file of edits is older than the ledger's last records; "" where it is not."""
    there = _of_edits(folder.edits)
    if there is None or there.records >= len(found.records):
        return ""
    return f"{folder.edits} is older than record {there.records + 1} of its ledger: a program died as it wrote both"


def _compare(folder: Workdir, found: Ledger) -> None:
    """Notes what is missing. Raises InputError where the records are not those that were there."""
    for path, there in _marks(folder):
        missing = there.records - len(found.records)
        if missing > found.damaged:
            there_are = f"{found.path / ledger.NAME} ends after record {len(found.records)} of {there.records}"
            found.lost = f"{there_are}; what came after it is not used"
            found.damaged = missing
        elif missing <= 0 and mark(found.records[: there.records]) != there:
            remedy = _anew(path) if path == folder.edits else "give that back, or name another --workdir"
            raise InputError(f"{found.path} is not the ledger that {path} was written along with; {remedy}.")


def _anew(path: Path) -> str:
    return f"remove {path.name}, and --mode=replay makes that of the ledger"


def _marks(folder: Workdir) -> Iterator[tuple[Path, Mark]]:
    """What is known of the ledger; a file that is damaged itself knows nothing."""
    there = _of_edits(folder.edits)
    if there is not None:
        yield folder.edits, there
    try:
        told = storing.read_json(folder.summary, "it is not used")["ledger"]
        there = Mark.read({"records": told["batches"], "content": told["content"]})
    except (InputError, ValueError, KeyError, TypeError):
        return
    yield folder.summary, there


def _of_edits(path: Path) -> Mark | None:
    try:
        return Mark.read(arrays.about(path, "edits")["ledger"])
    except (InputError, ValueError, KeyError, TypeError):
        return None
