"""Recorded arrays as the package's own trees, and the package's model, sites and plans for a recorded run.

Trees are put together with numpy: an eager JAX operation would be compiled for every shape there is.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.data import batching, records
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.packing import PackShape
from emsedit_jax.data.records import Cue, EditRecord, Role
from emsedit_jax.data.tokens import Tokenizer, tokenize
from emsedit_jax.edit import capture
from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.lm.model import LM, load_lm, load_tokenizer
from emsedit_jax.meta import methods
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.meta.trajectory import Learning
from emsedit_jax.run import prepare, settings
from emsedit_jax.types import Deltas, NormStats, Sites, Stats, Theta, Trace
from tests.parity.golden import ROOT, Case, Pass

ROLES: dict[str, Role] = {"train": "train", "valid": "eval"}
Given = TypeVar("Given")
Made = TypeVar("Made")


def once(make: Callable[[Given], Made]) -> Callable[[Given], Made]:
    """Makes it once for each mesh in force."""
    cached = functools.cache(lambda given, mesh: make(given))
    return lambda given: cached(given, (sharding.size(sharding.DATA), sharding.size(sharding.MODEL)))


@once
def lm(folder: pathlib.Path) -> LM:
    """The recorded model."""
    return load_lm(str(folder), "float32")


@once
def sites(case: Case) -> Sites:
    """The run's edit sites, grouped by shape."""
    return edit_sites.resolve(lm(case.model_folder).config, case.config["model"]["edit_modules"])


@once
def plans(case: Case) -> dict[str, EditPlan]:
    """Phase -> the recorded draw of batches, packed by the package, in one shape that other runs have too."""
    dataset, editor = case.config["dataset"], case.config["editor"]
    found = {}
    for phase, role in ROLES.items():
        if case.has(f"batch/{phase}"):
            drawn, tokenizer = case.arrays[f"rows/{phase}"], load_tokenizer(case.model_folder)
            facts = records.load(dataset["name"], ROOT / dataset[f"{phase}_path"], role=role)
            if dataset["name"] == "fever":
                facts = as_drawn(case, phase, facts, tokenizer)
            found[phase] = batching.plan_tasks(
                facts,
                tokenizer,
                n_edits=dataset["n_edits"],
                num_batches=len(drawn),
                batch_size=dataset["batch_size"],
                token=editor["token"],
                rows=drawn,
                parts=sharding.size(sharding.DATA),
                lanes=sharding.row_lanes(),
            )
    planned = [shapes[-1] for plan in found.values() for shapes in plan.shapes.values()]
    shape = common_shape(*(max(sizes) for sizes in zip(*planned, strict=True)))
    return {
        phase: dataclasses.replace(plan, shapes=dict.fromkeys(plan.shapes, (shape,))) for phase, plan in found.items()
    }


def as_drawn(case: Case, phase: str, facts: list[EditRecord], tokenizer: Tokenizer) -> list[EditRecord]:
    """The facts with the paraphrases that the run had drawn: those of the recorded ids."""
    rows = json.loads((ROOT / case.config["dataset"][f"{phase}_path"]).read_text(encoding="utf-8"))
    facts = list(facts)
    for j, batch in enumerate(case.arrays[f"rows/{phase}"].tolist()):
        left = recorded_prompts(case, f"batch/{phase}/{j}/equiv")
        for row in batch:
            cues = [Cue(prompt, rows[row]["alt"]) for prompt in rows[row]["equiv_prompt"]]
            items = tokenize(cues, [facts[row].source] * len(cues), tokenizer)
            place = [item.tokens in left for item in items].index(True)
            left.remove(items[place].tokens)
            facts[row] = dataclasses.replace(facts[row], equiv=(cues[place],))
        assert not left
    return facts


def recorded_prompts(case: Case, prefix: str) -> list[tuple[int, ...]]:
    """Ids of one batch's prompts of a kind, without padding, micro-batch by micro-batch."""
    fields, found, number = case.under(prefix), [], 0
    while f"{number}/input_ids" in fields:
        ids, mask = fields[f"{number}/input_ids"], fields[f"{number}/attention_mask"]
        found += [tuple(row[used == 1].tolist()) for row, used in zip(ids, mask, strict=True)]
        number += 1
    return found


def common_shape(b: int, t: int, a: int, n: int, p: int) -> PackShape:
    """The shape rounded up, so that most runs share compiled programs."""
    return PackShape(up(b, 8), up(t, 32), rows(a), rows(n), up(p, 128))


def rows(n: int) -> int:
    """Row counts, rounded up by so little that key widths (32, 56) still lie on both sides: both solves are taken."""
    return up(n, 24)


def up(size: int, step: int) -> int:
    """The next multiple."""
    return -(-size // step) * step


# ------------------------------------------------------------------------------------------------ the language model


def by_site(case: Case, prefix: str) -> Deltas:
    """Arrays stored as `<prefix>/<site>`, stacked per group."""
    return tuple(
        jnp.asarray(np.stack([case.arrays[f"{prefix}/{name}"] for name in group.names])) for group in sites(case)
    )


def site_pairs(case: Case, prefix: str, trees) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(key, ours, recorded) of every site, for arrays stored as `<prefix>/<site>`."""
    return [
        (f"{prefix}/{name}", np.asarray(tree)[s], case.arrays[f"{prefix}/{name}"])
        for group, tree in zip(sites(case), trees, strict=True)
        for s, name in enumerate(group.names)
    ]


def deltas(case: Case, edits: tuple[str, ...]) -> Deltas:
    """The recorded shifts of some passes, summed in their order."""
    total = [np.zeros((len(group.names), group.k, group.v), np.float32) for group in sites(case)]
    for key in edits:
        total = [a + np.asarray(b) for a, b in zip(total, by_site(case, f"{key}/shift"), strict=True)]
    return sharding.put(tuple(total), tuple(map(sharding.spec_of_edit, sites(case))))


def original_weights(case: Case) -> tuple[np.ndarray, ...]:
    """The unedited weight of every site, per group."""
    layers = lm(case.model_folder).params["layers"]

    def weight(layer: int, module: str) -> np.ndarray:
        part, name = module.split(".")
        return np.asarray(layers[layer][part][name]["w"])

    return tuple(np.stack([weight(*place) for place in zip(g.layers, g.modules, strict=True)]) for g in sites(case))


@once
def captured(case: Case) -> dict[str, Trace]:
    """The package's own capture at every pass of a run, on weights with the recorded shifts in them."""
    model, found = lm(case.model_folder), {}
    for one in case.history.passes:
        (batch,) = plans(case)[one.phase][one.step].edit
        prefix_md = capture.prefix(model.config, sites(case), model.params, batch)
        found[one.key] = capture.capture(
            model.config, sites(case), model.params, deltas(case, one.edits), prefix_md, batch
        )
    return found


def micro_batch_sums(plan: EditPlan, j: int, kind: str, values_a) -> np.ndarray:
    """Per-row values of a packed batch, summed inside each micro-batch with the rows' weights."""
    (batch,) = getattr(plan[j], kind)
    item_a, values_a = np.asarray(batch.item_a), np.asarray(values_a) * batch.weights_a
    rank = np.argsort(plan.order(j, kind))  # a prompt's place in the published order
    used = item_a >= 0
    return np.bincount(rank[item_a[used]] // plan.batch_size, weights=np.asarray(values_a, np.float64)[used])


def prompts(case: Case, phase: str, j: int, kind: str) -> Prompts:
    """One kind of a batch, ready for the model."""
    model = lm(case.model_folder)
    return capture.prompts(model.config, sites(case), model.params, getattr(plans(case)[phase][j], kind))


# ------------------------------------------------------------------------------------------------ the editor


def config(case: Case) -> ml_collections.ConfigDict:
    """The recorded configuration, with the package's own settings of training."""
    repeat = {"repeat_shared": case.about["follow"] == "imitate"}
    return ml_collections.ConfigDict({**case.config, "train": settings.TRAIN | repeat})


def learning(case: Case) -> Learning:
    """How the package trains with the recorded configuration."""
    return prepare.learning_of(config(case), methods.method(case.config["editor"]["name"]), len(plans(case)["train"]))


def lessons(case: Case, j: int) -> list[Lesson]:
    """What batch j of the training is to teach, and the batches before it where they are replayed."""
    found = learning(case)
    newest_first = range(j, max(j - found.back_depth, -1), -1)
    return [
        Lesson(prompts(case, "train", k, "equiv"), prompts(case, "train", k, "unrel"), found.time_decay ** (j - k))
        for k in newest_first
    ]


# ------------------------------------------------------------------------------------------------ rows and statistics


def trace(case: Case, key: str) -> Trace:
    """Recorded keys and value gradients of a pass, padded with zeros to one shape for the whole run."""
    n = rows(max(int(array.sum()) for name, array in case.arrays.items() if name.endswith("/rows")))
    used = int(case.arrays[f"{key}/rows"].sum())

    def padded(kind: str) -> Deltas:
        stacks = by_site(case, f"{key}/{kind}")
        return tuple(jnp.asarray(np.pad(np.asarray(stack), ((0, 0), (0, n - used), (0, 0)))) for stack in stacks)

    loss, ce_a = (jnp.asarray(np.zeros(shape, np.float32)) for shape in ((), (n,)))
    return Trace(padded("keys"), padded("values_grad"), jnp.asarray(np.arange(n) < used), loss, ce_a)


def stats(case: Case, prefix: str) -> Stats:
    """Recorded statistics stored as `<prefix>/<shape>/...`."""

    def one(shape: str) -> NormStats:
        count, mean, var = (case.arrays[f"{prefix}/{shape}/{field}"] for field in ("n", "mean", "var"))
        return NormStats(jnp.asarray(count[0].astype(np.int32)), jnp.asarray(mean), jnp.asarray(var))

    return tuple(one(group.shape_key) for group in sites(case))


def stats_before(case: Case, one: Pass) -> Stats | None:
    """The statistics that a pass added its rows to; None where they are not recorded."""
    prefix = f"init/norm/{case.slot(one.net)}" if one.before is None else f"{one.before}/norm"
    return stats(case, prefix) if case.has(prefix) else None


# ------------------------------------------------------------------------------------------------ networks


def shapes(case: Case) -> list[str]:
    """The shape keys of the run's networks, in the order of the edit sites."""
    return list(dict.fromkeys(case.about["module_index"][name][0] for name in case.config["model"]["edit_modules"]))


def networks(case: Case) -> list[int]:
    """The numbers of the recorded networks; none for an editor without."""
    return sorted({int(key.split("/")[2]) for key in case.arrays if key.startswith("init/hyper/")})


def theta(case: Case, prefix: str | None, net: int) -> Theta:
    """Network `net`'s recorded parameters, or gradients (absent: zero), stored as `<prefix>/<net>/<shape>/...`."""
    assert prefix is None or case.has(prefix), f"nothing is recorded under {prefix}"

    def one(shape: str) -> dict:
        initial = case.under(f"init/hyper/{net}/{shape}")
        recorded = case.under(f"{prefix}/{net}/{shape}")
        assert recorded.keys() <= initial.keys()
        leaves = {name: jnp.asarray(recorded.get(name, np.zeros_like(array))) for name, array in initial.items()}
        blocks: dict[int, dict] = {}
        for name in [name for name in leaves if name.startswith("blocks.")]:
            _, number, field = name.split(".")
            blocks.setdefault(int(number), {})[field] = leaves.pop(name)
        return {"blocks": blocks, **leaves}

    return tuple(one(shape) for shape in shapes(case))


def thetas(case: Case, prefix: str | None) -> tuple[Theta, ...]:
    """The same of all recorded networks; zeros without a prefix."""
    return tuple(theta(case, prefix, net) for net in networks(case))


def networks_after(age: int) -> str:
    """Where the networks' parameters after `age` optimiser steps are."""
    return f"opt/{age}/hyper" if age else "init/hyper"


def theta_of(case: Case, one: Pass) -> Theta:
    """The parameters that a pass's shift was predicted with; `None`s for an editor without networks."""
    if not networks(case):
        return (None,) * len(sites(case))
    return theta(case, networks_after(one.age), case.slot(one.net))


def spec(case: Case, net: int) -> NetSpec:
    """The structure of edit step `net`'s network."""
    editor = case.config["editor"]
    if not networks(case):
        return NetSpec(0, 0, editor["lr"])
    rank = case.arrays[f"init/hyper/{case.slot(net)}/{shapes(case)[0]}/blocks.0.A"].shape[1]
    return NetSpec(rank, editor["n_blocks"], editor["lr"])


def theta_pairs(what: str, ours: tuple[Theta, ...], recorded: tuple[Theta, ...]) -> list[tuple[str, object, object]]:
    """(path, ours, recorded) of every leaf of all networks."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(recorded)
    assert structure == jax.tree.structure(ours), "networks of another structure"
    return [
        (what + "/" + jax.tree_util.keystr(path, simple=True, separator="/"), a, b)
        for (path, b), a in zip(leaves, jax.tree.leaves(ours), strict=True)
    ]


def host(tree):
    """The tree as numpy arrays."""
    return jax.tree.map(np.asarray, tree)
