"""Recorded runs over eight devices: each batch gives the numbers of one device, and the run its scores."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import pytest

from emsedit_jax import sharding
from emsedit_jax.edit.step import no_edit
from emsedit_jax.meta import trajectory
from emsedit_jax.types import Deltas, MetaState
from tests import tiny_lm
from tests.parity import golden, ours, test_end_to_end
from tests.parity.compare import STAGE, assert_close
from tests.parity.golden import Case
from tests.sharded.conftest import MESHES

NAMED = (  # on every mesh: five families, every editor
    "llama_zsre_seq_emsedit",
    "llama-tied_zsre_seq_emsedit",
    "llama_zsre_seq_ultraedit_even",
    "gptj_counterfact_seq_malmen",
    "gpt2_fever_seq_mend",
    "gemma2_ripple_seq_rledit_mended",
)
IN_CI = (("llama_zsre_seq_emsedit", "2x4"), ("gpt2_fever_seq_mend", "4x2"))
Pair = tuple[str, np.ndarray, np.ndarray]  # (name, over devices, on one)
MATCHED = ("all", "imitate")  # of the cases' `follow`: those that must match


def chosen() -> list:
    """Every run to be matched on 2 x 4, and those named on the other meshes too; most of them long."""
    names = [name for name in golden.case_names() if golden.about(name)["follow"] in MATCHED]
    pairs = [(name, "2x4") for name in names]
    pairs += [(name, mesh) for name in NAMED for mesh in MESHES if mesh != "2x4" and name in names]
    return [pytest.param(*pair, marks=() if pair in IN_CI else pytest.mark.long) for pair in pairs]


@pytest.mark.parametrize(("name", "mesh"), chosen(), indirect=["mesh"])
def test_a_recorded_run_over_devices_gives_the_numbers_of_one(name, mesh):
    case = golden.load(name)
    assert_close(fed_alike(case, mesh), STAGE)
    alone = test_end_to_end.run(case)
    with jax.set_mesh(mesh):
        there = test_end_to_end.run(case)
    assert alone.scores.keys() == there.scores.keys()
    for key, shares in alone.scores.items():
        np.testing.assert_array_equal(there.scores[key], shares, err_msg=key)


def fed_alike(case: Case, mesh: jax.sharding.Mesh) -> Iterator[Pair]:
    """All shifts, and the edits after each batch, over devices and on one, which both begin alike."""
    for one in alone(case):
        with jax.set_mesh(mesh):
            found = over_devices(case, one.phase, one.j, one.begun)
        yield from pairs(case, one, *found)


class Fed(NamedTuple):
    """A batch of a recorded run on one device: what it began with, and what came of it.

    Small differences grow from batch to batch: networks learn from them, and later batches are captured under them.
    """

    phase: str
    j: int
    begun: tuple[Deltas, MetaState]
    edits: Deltas
    shifts: tuple[Deltas, ...]


def alone(case: Case) -> Iterator[Fed]:
    """The batches of the run, one after the other."""
    editor = test_end_to_end.editor_of(case)
    state = test_end_to_end.initial_state(case, editor)
    for phase in ("train", "valid") if editor.method.learned else ("valid",):
        deltas = no_edit(editor.sites)
        for j in range(len(ours.plans(case)[phase])):
            begun = tiny_lm.host((deltas, state))
            deltas, state, shifts = batch(case, editor, phase, j, *jax.device_put(begun))
            yield Fed(phase, j, begun, deltas, shifts)
        learning = ours.learning(case) if editor.method.learned else None
        if phase == "train" and learning is not None and learning.update_every == "trajectory":
            state, _ = trajectory.finish(learning, state)


def over_devices(case: Case, phase: str, j: int, begun: tuple) -> tuple[Deltas, tuple[Deltas, ...]]:
    """(edits, shifts) of a batch on the mesh in force."""
    editor = test_end_to_end.editor_of(case)
    specs = tuple(map(sharding.spec_of_edit, editor.sites))
    edits, _, shifts = batch(case, editor, phase, j, sharding.put(begun[0], specs), sharding.put(begun[1]))
    return edits, shifts


def pairs(case: Case, one: Fed, edits: Sequence, shifts: Sequence) -> Iterator[Pair]:
    """What is to be compared with the batch on one device."""
    for i, (found, expected) in enumerate(zip(shifts, one.shifts, strict=True)):
        yield from by_site(case, f"{one.phase}/{one.j}/net{i}/shift", found, expected)
    yield from by_site(case, f"{one.phase}/{one.j}/edits", edits, one.edits)


def batch(case: Case, editor: trajectory.Editor, phase: str, j: int, deltas: Deltas, state: MetaState):
    """(edits, state, shifts) of one batch of training or editing."""
    params, edit = ours.lm(case.model_folder).params, ours.prompts(case, phase, j, "edit")
    if phase == "valid":
        deltas, state, steps = trajectory.edit_batch(editor, params, deltas, state, edit, shifts=True)
    else:
        lessons = ours.lessons(case, j)
        given = editor, ours.learning(case), params, deltas, state, edit, lessons
        deltas, state, aux = trajectory.train_batch(*given, shifts=True)
        steps = aux.steps
    shifts = tuple(step.shift for step in steps if step.shift is not None)
    assert len(shifts) == len(steps)
    return deltas, state, shifts


def by_site(case: Case, what: str, found, expected) -> list[Pair]:
    """(name, found, expected) of every site; of edits that are taken back there are none to compare."""
    return [
        (f"{what}/{name}", np.asarray(one)[s], np.asarray(other)[s])
        for group, one, other in zip(ours.sites(case), found, expected, strict=True)
        for s, name in enumerate(group.names)
        if np.any(np.asarray(other))
    ]
