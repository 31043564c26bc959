"""Trained networks on disk: one safetensors file with every parameter and the normalisers that belong to them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.meta.trajectory import Editor
from emsedit_jax.run import arrays, together, workdir
from emsedit_jax.types import MetaState, NormStats

SET_BY = {  # what networks are trained for -> what sets it
    "editor": "--config=FILE:editor=NAME",
    "sites": "--config.model.edit_modules",
    "networks": "--config.editor.iters (a network a step; one in all with --config.num_seq=1)",
    "rank": "--config.editor.rank",
    "n_blocks": "--config.editor.n_blocks",
}
OTHERS = "load other networks, or none"


def save(path: Path, editor: Editor, state: MetaState, base: Identity) -> None:
    """Writes networks and statistics whole or not at all; `base` is the model that they were trained on."""
    arrays.write(path, named(editor, state), "networks", base.about() | _about(editor))


def file_of(given: str) -> Path:
    """The file that `--config.editor.load` names, itself or by its run's folder. Cheap; nothing is read.

    Raises InputError where there is none.
    """
    path = Path(given)
    together.finish(path)
    path = workdir.Workdir(path).networks if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"{path} is missing: --config.editor.load={given} must name the folder of a run that trained networks, or "
            "their file in it."
        )
    return path


def load(path: Path, editor: Editor, state: MetaState, base: Identity) -> MetaState:
    """`state` with the networks and statistics of the file in place of its own.

    Raises InputError for a damaged file, and for networks of another editor, model, site or size: both sides are named.
    """
    there, found = arrays.read(path, "networks", "train again")
    if not base.is_of(there):
        raise InputError(
            f"{path} was trained on {Identity.read(there)}, this run has {base}; {base.remedy(there, OTHERS)}."
        )
    for name, wanted in _about(editor).items():
        if there.get(name) != wanted:
            theirs, ours = _sides(there.get(name), wanted)
            raise InputError(f"{path} was trained with {name}={theirs}, this run has {name}={ours}; {_remedy(name)}.")
    expected = named(editor, state)
    odd = sorted(found.keys() ^ expected.keys())
    if odd:
        raise InputError(f"{path}: array {odd[0]!r} is only {'there' if odd[0] in found else 'in this run'}; {OTHERS}.")
    for name, wanted in expected.items():
        if found[name].shape != wanted.shape or found[name].dtype != wanted.dtype:
            sides = [f"{one.dtype}{list(one.shape)}" for one in (found[name], wanted)]
            raise InputError(f"{path}: {name} is {sides[0]}, this run has {sides[1]}; {OTHERS}.")
    return _filled(editor, state, found)


def _remedy(name: str) -> str:
    """What to set so that the networks fit."""
    setting = SET_BY.get(name)
    return f"set {setting} as it was in that run, or {OTHERS}" if setting else OTHERS


def _sides(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Two values that differ, for a line of text: of long lists the first place where they do."""
    if not (isinstance(theirs, list) and isinstance(ours, list)) or max(len(theirs), len(ours)) <= 3:
        return theirs, ours
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(theirs, ours, strict=False)))
    ends = (f"{one[same]!r}" if same < len(one) else "nothing" for one in (theirs, ours))
    words = (f"[{len(one)} of them, number {same + 1} {end}]" for one, end in zip((theirs, ours), ends, strict=True))
    return next(words), next(words)


def _about(editor: Editor) -> dict[str, Any]:
    """What networks are trained for. Published site names in order: a site's row in the tables is its place here."""
    return {
        "editor": editor.method.name,
        "sites": [name for group in editor.sites for name in group.names],
        "networks": len(editor.specs),
        "rank": [spec.rank for spec in editor.specs],
        "n_blocks": editor.specs[0].n_blocks,
    }


def _prefix(editor: Editor, net: int, group: int) -> str:
    return f"net{net}/{editor.sites[group].shape_key}"


def named(editor: Editor, state: MetaState) -> dict[str, np.ndarray]:
    """`net0/576x1536/blocks.0.A`, ... and `net0/576x1536/norm.mean_c`, ..., on the host; all processes must call it."""
    found: dict[str, np.ndarray] = {}
    for net, (theta, stats) in enumerate(zip(state.thetas, state.stats, strict=True)):
        for g in range(len(editor.sites)):
            for path, leaf in jax.tree_util.tree_leaves_with_path(theta[g]):
                found[f"{_prefix(editor, net, g)}/{_dotted(path)}"] = sharding.host(leaf)
            for field in dataclasses.fields(stats[g]):
                found[f"{_prefix(editor, net, g)}/norm.{field.name}"] = sharding.host(getattr(stats[g], field.name))
    return found


def _dotted(path: tuple) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def _filled(editor: Editor, state: MetaState, found: dict[str, np.ndarray]) -> MetaState:
    thetas, stats = [], []
    for net, (theta, old) in enumerate(zip(state.thetas, state.stats, strict=True)):
        groups, norms = [], []
        for g in range(len(editor.sites)):
            start = _prefix(editor, net, g)
            groups.append(
                jax.tree_util.tree_map_with_path(
                    lambda path, _, start=start: found[f"{start}/{_dotted(path)}"], theta[g]
                )
            )
            norms.append({f.name: found[f"{start}/norm.{f.name}"] for f in dataclasses.fields(old[g])})
        thetas.append(tuple(groups))
        stats.append(tuple(norms))
    thetas, stats = sharding.put((tuple(thetas), tuple(stats)))
    stats = tuple(tuple(NormStats(**fields) for fields in norms) for norms in stats)
    return MetaState(thetas, stats, state.opt_state, state.grads)
