"""The session behind a page: one piece of work at a time, in a thread of its own, and what the page shows of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.run import storing, workdir
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.session.session import EditSession
from emsedit_jax.session.told import EditReport

MOST_WAITING = 8  # pieces of work, the one that is being done among them
MOST_BATCHES, MOST_FACTS = 100, 20  # that the page lists: the newest batches, the first facts of each


class Busy(Exception):
    """Not now; says why."""


class Desk:
    """A session, and what was done in it since it was saved.

    What has no underscore and is not async is for the session's thread, see `do`; `state` alone may be read anywhere.
    """

    def __init__(self, session: EditSession, path: Path):
        """Args: path: where the session is saved to, and beside which exports go."""
        self.session, self.path = session, path
        self._kept = frozenset(session.batches)  # that lie in a folder
        self._saved_here = False  # by this program, so that writing over needs no question
        self._report: dict[str, Any] | None = None  # of the last edit
        self._doing, self._waiting = "", 0
        self._worker = ThreadPoolExecutor(1, "session", sharding.carried())
        self._state = self._seen()

    @property
    def state(self) -> dict[str, Any]:
        """What the page shows: the edits in force, the last report, and what is being done, in words."""
        return self._state | {"doing": self._doing}

    async def do(self, work: Callable[[], Any], doing: str = "") -> Any:
        """The result of `work()`, which is done after what was asked for before.

        Args:
          doing: in words, what changes or writes the session. Two of these do not wait for each other: who asks for the
            second has not seen what the first one did.

        Raises Busy.
        """
        if doing and self._doing:
            raise Busy(f"{self._doing}: wait until that is done.")
        if self._waiting >= MOST_WAITING:
            raise Busy("too much is asked at once: wait for an answer.")
        self._doing, self._waiting = doing or self._doing, self._waiting + 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        finally:
            self._doing, self._waiting = "" if doing else self._doing, self._waiting - 1

    def close(self) -> None:
        """Waits for what is being done; the rest is dropped."""
        self._worker.shutdown(cancel_futures=True)

    # ------------------------------------------------------------------------------------------ in the session's thread

    def edit(self, facts: Sequence[Mapping[str, Any]]) -> None:
        """Raises InputError as `EditSession.edit` does."""
        report = self.session.edit(list(facts))
        self._report = told(report)
        self._state = self._seen()

    def ask(self, prompt: str) -> dict[str, Any]:
        """How the model goes on, without and with the edits. Raises InputError for a prompt that is too long."""
        most = self.session.config.eval.max_new_tokens
        before, after = (self.session.generate(prompt, most, edited=edited) for edited in (False, True))
        return {"prompt": prompt, "before": before, "after": after, "facts": len(self.session.facts)}

    def undo(self, batch: int) -> None:
        """Raises InputError for a batch that is not in force."""
        if batch not in self.session.batches:
            raise InputError(f"batch {batch} is not in force any more: there is nothing to take back.")
        self.session.undo(batch)
        self._state = self._seen()

    def save(self, where: str) -> dict[str, Any]:
        """Writes the session, or says what is to be asked first.

        Args:
          where: "": not over what this program has not written; over: the same folder all the same; beside: a new one.

        Raises InputError where something else lies there, or the disk refuses.
        """
        if where == "beside":
            self.path = free(self.path)
        elif where != "over" and not self._saved_here and workdir.is_taken(self.path):
            return {"ask": {"over": str(self.path), "beside": str(free(self.path))}}
        self._saved_here = False  # where this fails, the next time asks
        self.session.save(self.path)
        self._saved_here, self._kept = True, frozenset(self.session.batches)
        self._state = self._seen()
        return {"saved": str(self.path)}

    def export(self, form: str) -> str:
        """Writes the edited model to a new folder, and says which. Raises InputError where that cannot be done."""
        if not self.session.batches:
            raise InputError("no edits are in force: there is nothing to export.")
        target = self.path.with_name(f"{self.path.name}-{form}")
        return str(self.session.export(free(target) if target.exists() else target, form))

    def unsaved(self) -> list[str]:
        """What lies in no folder, in words: facts, and batches taken back."""
        batches = self.session.batches
        new = [one for number, facts in batches.items() if number not in self._kept for one in facts]
        gone = sorted(self._kept - batches.keys())
        return [f"{one.edit.prompt!r} -> {one.edit.answer!r}" for one in new] + [
            f"batch {one} taken back" for one in gone
        ]

    def _seen(self) -> dict[str, Any]:
        batches, config = self.session.batches, self.session.config
        newest = list(batches.items())[-MOST_BATCHES:]
        return {
            "model": config.model.name_or_path,
            "editor": config.editor.name,
            "networks": self.session.networks,
            "folder": str(self.path),
            "unsaved": len(self.unsaved()),
            "facts": sum(map(len, batches.values())),
            "earlier": len(batches) - len(newest),  # batches that are not listed
            "batches": [
                {
                    "number": number,
                    "facts": [{"prompt": one.edit.prompt, "answer": one.edit.answer} for one in facts[:MOST_FACTS]],
                    "more": max(len(facts) - MOST_FACTS, 0),
                }
                for number, facts in newest
            ],
            "report": self._report,
        }


def told(report: EditReport) -> dict[str, Any]:
    """A report as JSON has it, with what its facts say of themselves."""
    facts = [
        dataclasses.asdict(one)
        | {"took": one.took, "broke": [dataclasses.asdict(each) for each in one.nearby if each.broke]}
        for one in report.facts
    ]
    rows = [{"what": what, "before": before, "after": after} for what, before, after in report.rows()]
    return storing.plain({"batches": report.batches, "seconds": report.seconds, "facts": facts, "scores": rows})


def free(path: Path) -> Path:
    """The folder's name with the first number behind it that nothing has."""
    number = 2
    while (found := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return found


def target_of(path: Path) -> Path:
    """Where a session opened from `path` is saved: a run is not written over."""
    path = path if path.name not in ("", "..") else path.resolve()
    return free(path) if workdir.is_taken(path) and not Workdir(path).session.exists() else path
