"""What each edit step reports, and the stop where a number is not finite or a solve not to be trusted."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax.edit.solve import WORST_ERROR
from emsedit_jax.edit.step import StepAux
from emsedit_jax.errors import InputError
from emsedit_jax.meta.trajectory import Editor, TrainAux
from emsedit_jax.types import BySite, Deltas, MetaState, Sites

OF_A_STEP = ("edit_loss", "solve_error", "shift_norm")  # in the order they come about
OF_A_PULL = ("own_grad_norm", "grad_norm")  # of the gradient brought to a step's network
OF_A_LOSS = ("equiv_loss", "locality_loss", "drift", "weight_grad_norm")


class Diverged(InputError):
    """The run cannot go on; holds what was good before the batch that broke it (no edits: there were none yet)."""

    def __init__(self, message: str, deltas: Deltas | None, state: MetaState):
        super().__init__(message)
        self.deltas, self.state = deltas, state


@jax.jit
def gradient_norms(gradient: BySite) -> tuple[jax.Array, ...]:
    """Frobenius norm of each site's gradient, per group."""
    return tuple(jnp.stack([jnp.linalg.norm(one_kv) for one_kv in group]) for group in gradient)


def of_step(editor: Editor, aux: StepAux) -> dict:
    """The metrics of an edit step, some of them a number a site. Still on the device."""
    row = {"edit_loss": aux.loss, "shift_norm": _by_site(editor.sites, aux.norms)}
    solves = editor.method.rule.ridge is not None
    return row | ({"solve_error": _by_site(editor.sites, aux.error)} if solves else {})


def step_row(steps: Sequence[dict]) -> dict:
    """The metrics of a batch's edit steps: a list entry a step."""
    return {name: [step[name] for step in steps] for name in steps[0]}


def training_row(editor: Editor, aux: TrainAux) -> dict:
    """The metrics of a training batch.

    Those of its steps; its losses, one or one a step, with their gradients' norms by site; the norms of the networks'
    gradient, each site's own part and the clipped sum's; and of the networks after each update.
    """
    updates = {"network_norm": list(aux.moved)} if aux.moved else {}
    return step_row([of_step(editor, step) for step in aux.steps]) | {
        "equiv_loss": [loss.equiv for loss in aux.losses],
        "locality_loss": [loss.locality for loss in aux.losses],
        "drift": [loss.drift for loss in aux.losses],
        "weight_grad_norm": [_by_site(editor.sites, gradient_norms(one)) for one in aux.weight_grads],
        "own_grad_norm": [_by_site(editor.sites, norms) for norms in aux.own_norms],
        "grad_norm": list(aux.norms),
        **updates,
    }


@functools.partial(jax.jit, static_argnums=0)
def _by_site(sites: Sites, values: tuple[jax.Array, ...]) -> dict[str, jax.Array]:
    return {name: one_s[s] for group, one_s in zip(sites, values, strict=True) for s, name in enumerate(group.names)}


def check(
    editor: Editor, place: Mapping, row: Mapping, deltas: Deltas | None, state: MetaState, rates: str = ""
) -> None:
    """Stops at the first number that went wrong, naming batch, step and site.

    `rates`: what is to be lowered then; "": the flags of a run. Raises: Diverged, with the `deltas` and `state` given.
    """
    rates = rates or "--config.editor.lr" + (" or --config.editor.meta_lr" if editor.method.learned else "")
    for where, name, value in _in_order(row):
        fault = _fault(name, float(value), rates)
        if fault:
            raise Diverged(f"{_words(place)}{where}: {fault} Batches and steps count from 0.", deltas, state)


def check_update(place: Mapping, norm: jax.Array, state: MetaState) -> None:
    """Stops where the optimiser's step at a trajectory's end was not taken (see `meta.gradient.adam_step`).

    Raises: Diverged, with the `state` given, which is the one before that step.
    """
    if not np.isfinite(norm):
        raise Diverged(f"{place['phase']}{_of(place)}: {_refused(float(norm))}", None, state)


def _refused(norm: float) -> str:
    return f"the optimiser's step would make network_norm {norm}: it was not taken. Lower --config.editor.meta_lr."


def is_finite(state: MetaState) -> bool:
    """Whether all numbers of the networks and their normalisers are."""
    leaves = jax.tree.leaves((state.thetas, state.stats))
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)


def _in_order(row: Mapping) -> Iterator[tuple[str, str, float]]:
    """(step and site in words, name, value) of every number, in the order they came about."""
    steps = len(row["edit_loss"])
    learning = [name for name in (*OF_A_LOSS, *OF_A_PULL) if name in row]
    a_loss_a_step = bool(learning) and len(row[OF_A_LOSS[0]]) == steps
    for i in range(steps):
        for name in (*OF_A_STEP, *(learning if a_loss_a_step else ())):
            yield from _by_place(f", step {i}", name, row[name][i] if name in row else {})
    for name in () if a_loss_a_step else learning:
        for i, value in enumerate(row[name]):  # one loss after all steps, whose gradient goes to each step's network
            yield from _by_place(f", step {i}" if name in OF_A_PULL else "", name, value)
    for value in row.get("network_norm", ()):
        yield "", "network_norm", value


def _by_place(where: str, name: str, value: Any) -> Iterator[tuple[str, str, float]]:
    for site, one in value.items() if isinstance(value, Mapping) else [("", value)]:
        yield f"{where}{site and f', site {site}'}", name, one


def _fault(name: str, value: float, rates: str) -> str:
    """What is wrong with the number and what to do (`rates`: what to lower); nothing where it is right."""
    if name == "solve_error" and not value <= WORST_ERROR:
        fault = (
            f"the equations of the weight change cannot be solved precisely in float32 (off by about {value:.1%})"
            if np.isfinite(value)
            else "the equations of the weight change are singular in float32, or the edits have diverged"
        )
        return f"{fault}. Lower {rates}, or edit fewer facts at once that are asked in the same words."
    if np.isfinite(value):
        return ""
    if name == "network_norm":
        return _refused(value)
    return f"{name} is {value}, the {'edits have' if name in OF_A_STEP else 'training has'} diverged. Lower {rates}."


def _words(place: Mapping) -> str:
    return f"{place['phase']} batch {place['batch']}{_of(place)}"


def _of(place: Mapping) -> str:
    """Which trajectory, from the second on."""
    return f" of trajectory {place['trajectory']}" if place.get("trajectory") else ""
