"""Recorded runs over eight devices: each step gives the numbers of one device, and the run its scores."""

from collections.abc import Iterator
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

NAMED = (  # on every mesh: four families, tied weights, every editor
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


def matched() -> list[str]:
    """Every run to be matched."""
    return [name for name in golden.case_names() if golden.about(name)["follow"] in MATCHED]


def chosen() -> list:
    """Every run to be matched on 2 x 4, and those named on the other meshes too; most of them long."""
    names = matched()
    pairs = [(name, "2x4") for name in names]
    pairs += [(name, mesh) for name in NAMED for mesh in MESHES if mesh != "2x4" and name in names]
    return [pytest.param(*pair, marks=() if pair in IN_CI else pytest.mark.long) for pair in pairs]


@pytest.mark.skipif(
    golden.ROOT == golden.CARRIED, reason="the repository carries some of the cases; EMSEDIT_GOLDEN names them all"
)
def test_the_cases_named_are_there():
    assert set(NAMED) <= set(matched())


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
    """Every shift, and the edits after it, over devices and on one, which both begin the step alike."""
    for one in alone(case):
        with jax.set_mesh(mesh):
            found = over_devices(case, one.place, one.begun)
        yield from pairs(case, one, *found)


class Place(NamedTuple):
    """A step of a recorded run."""

    phase: str
    j: int  # batch
    i: int  # step

    def __str__(self) -> str:
        return "/".join(map(str, self))


class Fed(NamedTuple):
    """A step on one device: what it began with, and what came of it.

    Small differences grow from step to step: later ones are captured under them, and networks learn from them.
    """

    place: Place
    begun: tuple[Deltas, MetaState]
    edits: Deltas
    shift: Deltas


def alone(case: Case) -> Iterator[Fed]:
    """The steps of the run, one after the other."""
    editor = test_end_to_end.editor_of(case)
    learning = ours.learning(case) if editor.method.learned else None
    state = test_end_to_end.initial_state(case, editor)
    for phase in ("train", "valid") if learning is not None else ("valid",):
        deltas = no_edit(editor.sites)
        for j in range(len(ours.plans(case)[phase])):
            first = begun = tiny_lm.host((deltas, state))
            for i in range(editor.iters):
                edits, after, shift = step(case, editor, Place(phase, j, i), *jax.device_put(begun))
                yield Fed(Place(phase, j, i), begun, edits, shift)
                begun = tiny_lm.host((edits, after))
            if phase == "valid":
                deltas, state = jax.device_put(begun)
            else:
                deltas, state = learnt(case, editor, j, *jax.device_put(first))
        if phase == "train" and learning is not None and learning.update_every == "trajectory":
            state, _ = trajectory.finish(learning, state)


def over_devices(case: Case, place: Place, begun: tuple) -> tuple[Deltas, Deltas]:
    """(edits, shift) of a step on the mesh in force."""
    editor = test_end_to_end.editor_of(case)
    specs = tuple(map(sharding.spec_of_edit, editor.sites))
    edits, _, shift = step(case, editor, place, sharding.put(begun[0], specs), sharding.put(begun[1]))
    return edits, shift


def pairs(case: Case, one: Fed, edits: Deltas, shift: Deltas) -> Iterator[Pair]:
    """What is to be compared with the step on one device."""
    yield from by_site(case, f"{one.place}/shift", shift, one.shift)
    yield from by_site(case, f"{one.place}/edits", edits, one.edits)


def step(case: Case, editor: trajectory.Editor, place: Place, deltas: Deltas, state: MetaState):
    """(edits, state, shift) of one step."""
    params, edit = ours.lm(case.model_folder).params, ours.prompts(case, place.phase, place.j, "edit")
    deltas, state, aux = trajectory.step(editor, params, deltas, state, edit, place.i, shifts=True)
    assert aux.shift is not None
    return deltas, state, aux.shift


def learnt(case: Case, editor: trajectory.Editor, j: int, deltas: Deltas, state: MetaState) -> tuple[Deltas, MetaState]:
    """(edits, state) of one batch of training."""
    params, edit = ours.lm(case.model_folder).params, ours.prompts(case, "train", j, "edit")
    given = editor, ours.learning(case), params, deltas, state, edit, ours.lessons(case, j)
    deltas, state, _ = trajectory.train_batch(*given)
    return deltas, state


def by_site(case: Case, what: str, found, expected) -> list[Pair]:
    """(name, found, expected) of every site; of edits that are taken back there are none to compare."""
    return [
        (f"{what}/{name}", np.asarray(one)[s], np.asarray(other)[s])
        for group, one, other in zip(ours.sites(case), found, expected, strict=True)
        for s, name in enumerate(group.names)
        if what.endswith("/shift") or np.any(np.asarray(other))
    ]
