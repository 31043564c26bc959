"""Edits on disk: one safetensors file with a float32 weight change a site, which another process can load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from emsedit_jax.errors import InputError
from emsedit_jax.run import workdir
from emsedit_jax.types import Deltas, Sites

KEY = "emsedit_jax"
FORMAT = "emsedit-jax edits 1"


def named(sites: Sites, deltas: Deltas) -> dict[str, np.ndarray]:
    """Published site name -> its change [inputs, outputs]."""
    return {
        name: np.asarray(delta_skv[s])
        for group, delta_skv in zip(sites, deltas, strict=True)
        for s, name in enumerate(group.names)
    }


def digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """sha256 of each array's bytes."""
    return {name: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for name, value in arrays.items()}


def save(path: Path, sites: Sites, deltas: Deltas, model_name: str) -> dict[str, str]:
    """Writes the edits whole or not at all; returns the digests that the file carries too."""
    arrays = named(sites, deltas)
    found = digests(arrays)
    about = {"format": FORMAT, "model": model_name, "layout": "[inputs, outputs]", "sha256": found}
    with workdir.replacing(path) as temporary:  # one key of metadata: several are written in an order that varies
        save_file(arrays, temporary, metadata={KEY: json.dumps(about, sort_keys=True)})
    return found


def check_present(path: Path) -> None:
    """Cheap, so that it can be asked before a model is loaded. Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError(f"{path} is missing: this run has saved no edits; run --mode=train first.")


def load(path: Path, sites: Sites) -> Deltas:
    """The edits in `path`, for exactly these sites.

    Raises InputError for a missing or damaged file, other sites, other shapes, or bytes that changed since saving.
    """
    check_present(path)
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(json.loads((file.metadata() or {}).get(KEY, "{}")))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        saved = dict(about.get("sha256", {}))
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); run the edits again.") from None
    if about.get("format") != FORMAT:
        raise InputError(f"{path} does not hold edits of this program (format {about.get('format')!r}).")
    expected = {name: (group.k, group.v) for group in sites for name in group.names}
    odd = sorted(arrays.keys() ^ expected.keys())
    odd += [name for name in expected if name in arrays and arrays[name].shape != expected[name]]
    if odd:
        raise InputError(f"{path} holds edits of other sites or another model (for instance {odd[0]}).")
    found = digests(arrays)
    changed = [name for name in expected if saved.get(name) != found[name] or arrays[name].dtype != np.float32]
    if changed:
        raise InputError(f"{path} is damaged: the bytes of {changed[0]} changed since they were saved; run again.")
    return tuple(jnp.stack([jnp.asarray(arrays[name]) for name in group.names]) for group in sites)
