"""Recorded runs, as found under EMSEDIT_GOLDEN (default tests/golden): their arrays, and what had happened before each.

A case's JSON holds its configuration and `trace`, the order of operations. From the trace follows, for every capture,
which shifts were in the weights, how many optimiser steps the networks had taken and which statistics came before. No
stage check has to know an editor's schedule for that.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Mapping

import numpy as np
import pytest

CARRIED = pathlib.Path(__file__).parents[1] / "golden"
ROOT = pathlib.Path(os.environ.get("EMSEDIT_GOLDEN") or CARRIED).resolve()
OWN = frozenset(path.stem for path in (CARRIED / "cases").glob("*.json"))  # runs that the repository carries


@dataclasses.dataclass(frozen=True)
class Pass:
    """One capture with the shift predicted from it: edit step `net` of batch `step`."""

    phase: str  # "train" or "valid"
    step: int
    net: int
    edits: tuple[str, ...]  # keys of the passes whose shifts were in the weights at the capture
    age: int  # optimiser steps before it
    before: str | None  # key of the pass that last fed the same statistics; None: as at the start

    @property
    def key(self) -> str:
        """Where the pass's arrays are."""
        return f"{self.phase}/{self.step}/net{self.net}"


@dataclasses.dataclass(frozen=True)
class Update:
    """One gradient taken from the language model and brought into the networks' gradients, net after net."""

    step: int
    number: int  # inside the step
    passes: tuple[Pass, ...]  # those whose networks get it, in order; one clipping after each
    edits: tuple[str, ...]  # in the weights at its (last) loss on equivalent prompts
    former: str | None  # key of the clipped sum that it adds to; None: zeros

    @property
    def key(self) -> str:
        """Where the update's arrays are."""
        return f"train/{self.step}/update{self.number}"

    def clip_key(self, c: int) -> str:
        """Where the sum after the c-th clipping is."""
        return f"{self.key}/clip{c}"


@dataclasses.dataclass(frozen=True)
class History:
    """A case's trace, understood. `steps[k]` is the key of the clipped sum that the optimiser's k-th step used."""

    passes: tuple[Pass, ...]
    updates: tuple[Update, ...]
    steps: tuple[str, ...]


def read_trace(trace: list[str], shared_net: bool) -> History:
    """Replays the order of operations. Raises: ValueError for an operation that it does not know."""
    passes: list[Pass] = []
    updates: list[Update] = []
    steps: list[str] = []
    phase, step, pending, clips = "", -1, [], 0
    edits: list[str] = []
    loss_edits: tuple[str, ...] = ()
    last_fed: dict[int, str] = {}
    former: str | None = None
    for line in trace:
        if found := re.fullmatch(r"(train|valid)\[(\d+)\]: batch", line):
            phase, step = found[1], int(found[2])
        elif found := re.fullmatch(r"cache\(net (\d+)\)", line):
            net = int(found[1])
            slot = 0 if shared_net else net
            passes.append(Pass(phase, step, net, tuple(edits), len(steps), last_fed.get(slot)))
            last_fed[slot] = passes[-1].key
            pending.append(passes[-1])
        elif line == "edit(+)":
            edits.append(passes[-1].key)
        elif line == "edit(-)":
            edits.remove(passes[-1].key)
        elif line.startswith("loss: cross entropy on an equiv"):
            loss_edits = tuple(edits)
        elif line == "update_hypernet":
            number = sum(update.step == step for update in updates)
            updates.append(Update(step, number, tuple(pending), loss_edits, former))
            pending, clips = [], 0
        elif line == "clip hypernet gradients":
            former = updates[-1].clip_key(clips)
            clips += 1
        elif line == "optimizer step":
            steps.append(str(former))
            former = None
        elif line == "reset_model":
            edits.clear()
            pending = []
        elif not line.startswith(("predict(", "evaluate", "loss: KL")):
            raise ValueError(f"the trace has an unknown operation: {line!r}")
    return History(tuple(passes), tuple(updates), tuple(steps))


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One recorded run."""

    name: str
    about: Mapping
    arrays: Mapping[str, np.ndarray]
    history: History

    @property
    def config(self) -> Mapping:
        """The run's complete configuration."""
        return self.about["config"]

    @property
    def shared_net(self) -> bool:
        """Whether all edit steps share one network with its statistics (recorded as net 0)."""
        return bool(self.about.get("shared_net", False))

    @property
    def model_folder(self) -> pathlib.Path:
        """The run's model."""
        return ROOT / self.config["model"]["name_or_path"]

    def slot(self, net: int) -> int:
        """Under which number the network and statistics of edit step `net` are recorded."""
        return 0 if self.shared_net else net

    def has(self, prefix: str) -> bool:
        """Whether there is any array under the prefix."""
        return any(key.startswith(prefix + "/") for key in self.arrays)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays under the prefix, by the rest of their key."""
        cut = len(prefix) + 1
        return {key[cut:]: array for key, array in self.arrays.items() if key.startswith(prefix + "/")}


def case_names() -> list[str]:
    """Every recorded run there is. None at all is an error: it would look like success."""
    names = sorted(path.stem for path in (ROOT / "cases").glob("*.json"))
    if not names:
        raise pytest.UsageError(f"no recorded runs under {ROOT / 'cases'}; check EMSEDIT_GOLDEN")
    return names


def model_names() -> list[str]:
    """Every model whose forward pass is recorded."""
    return sorted(path.parent.name for path in (ROOT / "models").glob("*/forward.npz"))


@functools.cache
def about(name: str) -> Mapping:
    """The case's JSON."""
    return json.loads((ROOT / "cases" / f"{name}.json").read_text(encoding="utf-8"))


def is_trained(name: str) -> bool:
    """Whether networks were trained in this run."""
    return "update_hypernet" in about(name)["trace"]


@functools.cache
def load(name: str) -> Case:
    """A recorded run, read once."""
    facts = about(name)
    with np.load(ROOT / "cases" / f"{name}.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    return Case(name, facts, arrays, read_trace(facts["trace"], bool(facts.get("shared_net", False))))
