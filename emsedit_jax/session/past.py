"""What a session has written so far: a ledger among the temporary files, and the facts of its batches."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from emsedit_jax import sharding
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import history, ledger, ledger_files
from emsedit_jax.run.ledger import Ledger
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.session import files
from emsedit_jax.session.told import EditReport, FactReport
from emsedit_jax.types import Deltas, Sites


class Past:
    """The edits of a session, which it can take back and save; nothing at first."""

    def __init__(self, base: Identity, sites: Sites):
        """Args: base: the model that is edited."""
        self.folder = Workdir(Path(tempfile.mkdtemp(prefix="emsedit-")))
        weakref.finalize(self, shutil.rmtree, self.folder.path, ignore_errors=True)
        self.ledger = ledger.create(self.folder.ledger, base, sites)
        self.facts: dict[int, list[EditRecord]] = {}  # batch -> its facts with all their prompts
        self.last: tuple[int, ...] = ()  # batches of the last edit

    @property
    def batches(self) -> dict[int, list[EditRecord]]:
        """The batches in force by number, each with its facts."""
        return {record.number: self.facts[record.number] for record in self.ledger.active()}

    def append(
        self,
        parts: Sequence[list[EditRecord]],
        written: Sequence[ledger_files.Steps],
        told: Sequence[Sequence[FactReport]],
    ) -> tuple[int, ...]:
        """Writes down batches and what came of them, all or none; returns their numbers.

        Raises InputError where they cannot be written.
        """
        before = len(self.ledger.records)
        try:
            for facts, factors, reports in zip(parts, written, told, strict=True):
                self._append(facts, factors, reports)
        except BaseException:  # a full disk, Ctrl-C
            ledger.cut(self.ledger, before)
            self.facts = {number: some for number, some in self.facts.items() if number <= before}
            raise
        self.last = tuple(range(before + 1, len(self.ledger.records) + 1))
        return self.last

    def _append(self, facts: list[EditRecord], factors: ledger_files.Steps, reports: Sequence[FactReport]) -> None:
        number = len(self.ledger.records) + 1
        name = ledger_files.name_of(number)
        digest = ledger_files.write(self.ledger.path / name, factors)
        scores = {name: after for name, (_, after) in EditReport((), tuple(reports), 0.0).scores.items()}
        self.ledger.append(ledger.EDIT, [ledger.row(one) for one in facts], scores, name, digest)
        self.facts[number] = facts

    def undo(self, numbers: Sequence[int]) -> Deltas:
        """The edits without those batches, which is written down. Raises InputError for any that is not in force."""
        deltas, write = history.undo(self.ledger, numbers)
        write()
        return deltas

    def begin_with(self, deltas: Deltas) -> None:
        """Takes over the edits of a run that kept no ledger, as one batch without facts."""
        name = ledger_files.name_of(1)
        digest = ledger_files.write_dense(self.ledger.path / name, tuple(map(sharding.host, deltas)))
        self.ledger.append(ledger.DENSE, (), {}, name, digest)
        self.facts = {1: []}

    def take_over(self, saved: Ledger, facts: Mapping[int, list[EditRecord]]) -> Deltas:
        """Goes on from another ledger, whose files stay where they lie; returns the edits in force."""
        files.refer(saved, self.ledger.path)
        self.ledger, self.facts = ledger.read(self.ledger.path), dict(facts)
        self.last = tuple(self.batches)[-1:]
        return history.deltas(self.ledger)

    def lean_on(self, saved: Workdir) -> None:
        """Uses the files of a folder that it was saved to: the one that it was opened from may go."""
        files.refer(ledger.read(saved.ledger), self.ledger.path)

    def close(self) -> None:
        """Removes the temporary files; nothing can be taken back or saved afterwards."""
        shutil.rmtree(self.folder.path, ignore_errors=True)
