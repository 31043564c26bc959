"""What the mesh in force does not divide evenly, in words: weights held whole, sites of ones, devices left idle."""

from __future__ import annotations

from emsedit_jax import sharding
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.edit import apart
from emsedit_jax.lm import params
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.meta.trajectory import Editor


def of_model(config: LMConfig) -> list[str]:
    """Weights that each device holds whole."""
    along = f"are no multiple of the devices along {sharding.MODEL}: each holds all of their weights"
    return [f"{words} {along}" for words in params.undivided(config)]


def of_plan(editor: Editor, plan: EditPlan) -> list[str]:
    """Batches with fewer prompts than there are devices for them, and solves that are filled up."""
    devices = sharding.size(sharding.DATA)
    if devices == 1:
        return []
    prompts = min(len(items) + len(plan.beside(j, "edit", last=True)) for j, items in enumerate(plan.items["edit"]))
    idle = f"{prompts} prompts of a batch are fewer than the {devices} devices along {sharding.DATA}"
    found = [f"{idle}: {devices - prompts} of these have none to edit"] if prompts < devices else []
    if editor.method.rule.ridge is None:
        return found
    rows = sum(shape.n for _, shape in plan.part(0, 1).passes("edit"))
    streamed = rows > max(editor.rows_at_once, *(group.k for group in editor.sites))
    filled = [(group, apart.filling(group, rows, streamed)) for group in editor.sites]
    words = [f"{len(group.layers)} of {group.k} x {group.v} with {more} of ones" for group, more in filled if more]
    if words:
        around = f"do not go round the {devices} devices along {sharding.DATA}: their solves are filled up"
        found.append(f"edit sites {around}, {', '.join(words)}")
    return found
