"""A session on disk: a workdir whose `session.json` says what the other files do not, so that it can go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.data import records
from emsedit_jax.data.cues import Cue, EditRecord
from emsedit_jax.disk import file_sha256
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.meta.trajectory import Editor
from emsedit_jax.run import anchor, edits, ledger, lock, networks, storing, together, workdir
from emsedit_jax.run.ledger import Ledger
from emsedit_jax.run.ledger_files import snapshot_of
from emsedit_jax.run.ledger_lines import mark
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.session import given
from emsedit_jax.types import Deltas, MetaState


class Saved(NamedTuple):
    """A session's or a run's folder, as far as it can be told without the model."""

    folder: Workdir
    config: ml_collections.ConfigDict  # not locked
    ledger: Ledger | None  # None: of a run that kept none
    facts: Mapping[int, list[EditRecord]]  # batch -> its facts
    networks: str  # where they are from, in words
    stride: float = 0.0  # times eta, of the first edit that took; 0: none did


def read(path: Path) -> Saved:
    """What lies in the folder. Raises InputError where there is neither a session nor a run, or it is damaged."""
    together.finish(path)
    folder = Workdir(path)
    config = ml_collections.ConfigDict(workdir.saved_config(path).to_dict())
    found = anchor.read(folder) if (folder.ledger / ledger.NAME).is_file() else None
    if found is not None and found.damaged:
        raise InputError(f"{found.lost}; --mode=compact --to=FOLDER makes new edits of those before it.")
    if folder.stages.exists():
        raise InputError(f"{path} holds a run that is not finished: finish it first, with the command it began with.")
    records_of = found.records if found is not None else ()
    facts = {record.number: _of_ledger(record.rows) for record in records_of if record.kind != ledger.UNDO}
    if not folder.session.exists():
        return Saved(folder, config, found, facts, f"of {path}")
    about = storing.read_json(folder.session, "name another folder")
    config = ml_collections.ConfigDict(workdir.with_tuples(workdir.filled(about["config"])))
    facts |= {int(number): _records(one, int(number)) for number, one in about["facts"].items()}
    return Saved(folder, config, found, facts, str(about["networks"]), float(about.get("stride", 0.0)))


def _of_ledger(rows: Sequence[Mapping[str, Any]]) -> list[EditRecord]:
    return [EditRecord(Cue(one["prompt"], one["answer"]), (), (), one["subject"], one["id"]) for one in rows]


def _records(rows: Sequence[Mapping[str, Any]], number: int) -> list[EditRecord]:
    return records.of_objects("facts", list(rows), role="eval", called=f"batch {number}")


def write(
    path: Path,
    config: ml_collections.ConfigDict,
    editor: Editor,
    state: MetaState,
    deltas: Deltas,
    base: Identity,
    history: Ledger,
    facts: Mapping[int, Sequence[EditRecord]],
    networks_of: str,
    stride: float,
) -> None:
    """Writes a session to a new folder, or to the one with an earlier state of the same one.

    Raises InputError where something else lies there, and where it cannot be written.
    """
    folder = Workdir(path)
    with lock.held(path):
        workdir.sweep(folder)
        together.complete(path)
        _check_ours(folder, history)
        active = [given.plain(one) for record in history.active() for one in facts[record.number]]
        by_batch = {str(number): [given.plain(one) for one in some] for number, some in facts.items()}
        with together.replacing(path) as part:
            new = Workdir(part)
            new.ledger.mkdir()
            copy(history, new.ledger, folder.ledger)
            edits.save(new.edits, editor.sites, deltas, base, mark(history.records))
            networks.save(new.networks, editor, state, base)  # or the statistics alone
            with storing.replacing(new.facts) as temporary:
                lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in active]
                temporary.write_text("".join(lines), encoding="utf-8")
            storing.write_json(new.config, asking(config, folder, len(active)).to_dict())
            about = {"config": config.to_dict(), "facts": by_batch, "networks": networks_of, "stride": stride}
            storing.write_json(new.session, about)


def asking(config: ml_collections.ConfigDict, folder: Workdir, count: int) -> ml_collections.ConfigDict:
    """The config with which the folder's own facts are scored, all at once."""
    found = ml_collections.ConfigDict(config.to_dict())
    found.dataset.name, found.dataset.valid_path = "facts", str(folder.facts.absolute())
    found.dataset.train_path = found.dataset.valid_path  # nothing is trained, but an editor with networks wants one
    found.num_seq, found.dataset.n_edits = 1, max(count, 1)
    return found


def copy(history: Ledger, target: Path, former: Path) -> None:
    """Brings a ledger's records to a new folder, and those of its files that the folder `former` does not have.

    Files of factors never change, so that a second name for them will do where the disk allows it.
    """
    last = history.dropped()
    with storing.writing(target):
        for record in history.records:
            for name, sha256 in ((record.file, record.sha256), (snapshot_of(record.number), record.snapshot)):
                there = former / name
                may_lack = name != record.file or record.number <= last  # snapshots, and what was dropped for one
                lost = may_lack and not (history.path / name).exists()
                if not name or not sha256 or lost or (there.is_file() and file_sha256(there) == sha256):
                    continue  # another file of that name is of edits that were not kept
                _bring(history.path / name, target / name)
        _write_records(history, target)


def _bring(file: Path, there: Path) -> None:
    try:
        os.link(file.resolve(), there)
    except FileNotFoundError:
        gone = f"{file.resolve()} is gone, with the weight change of edits that were opened from there"
        raise InputError(f"{gone}: --mode=export, or session.export, still writes what is in force.") from None
    except OSError:  # another disk
        shutil.copyfile(file, there)


def _write_records(history: Ledger, target: Path) -> None:
    """As far as they were read: other programs may add some meanwhile."""
    (target / ledger.NAME).write_bytes((history.path / ledger.NAME).read_bytes()[: history.good_bytes])


def refer(history: Ledger, target: Path) -> None:
    """Brings a ledger's records to another folder, and its files by second names, or by links from another disk."""
    with storing.writing(target):
        for file in history.path.glob("[!.]*.safetensors"):
            there = target / file.name
            if there.is_symlink() or not there.exists():
                there.unlink(missing_ok=True)
                try:
                    os.link(file, there)
                except OSError:  # another disk
                    there.symlink_to(file.resolve())
        _write_records(history, target)


def _check_ours(folder: Workdir, history: Ledger) -> None:
    """Whether nothing lies there, or an earlier state of the same history. Raises InputError."""
    if not workdir.is_taken(folder.path):
        return
    if not folder.session.exists():
        raise InputError(f"{folder.path} is not empty and holds no session; name another folder.")
    there = ledger.read(folder.ledger)
    ours = [record.hash for record in history.records]
    if [record.hash for record in there.records] != ours[: len(there.records)] or there.header() != history.header():
        raise InputError(
            f"{folder.path} holds another session, or edits that this one does not know; name another folder."
        )
