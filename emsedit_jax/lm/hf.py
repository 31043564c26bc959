"""Hugging Face model folders: one mapping table per family, closed on both sides; safetensors, without torch."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from emsedit_jax import sharding
from emsedit_jax.errors import InputError, together
from emsedit_jax.lm import json_files
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import FAMILIES
from emsedit_jax.lm.params import Params, Spec, abstract, is_spec, placement

LEAVES = {"w": "weight", "b": "bias"}
PICKLES = ("*.bin", "*.bin.index.json", "*.pt", "*.pth")
PIECE = 32 << 20  # bytes of a tensor that are read at once
ALIGNMENT = 64  # bytes
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def published_modules(config: LMConfig) -> dict[str, tuple[int, str]]:
    """Published name of every linear map inside the layers -> (layer, module path inside the layer)."""
    return {
        theirs.format(l=layer): (layer, ours.removeprefix("layers.{l}."))
        for layer in range(config.num_layers)
        for ours, theirs in FAMILIES[config.family].table.items()
        if is_linear(ours)
    }


def is_linear(module: str) -> bool:
    """True for the linear maps inside a layer, which are used as [inputs, outputs] here."""
    return ".attn." in module or ".mlp." in module


def published_names(config: LMConfig) -> dict[str, tuple[tuple, Spec, bool]]:
    """Published tensor name -> (path in our tree, Spec, transposed in the file)."""
    family, names = FAMILIES[config.family], {}
    for path, spec in jax.tree_util.tree_leaves_with_path(abstract(config), is_leaf=is_spec):
        keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
        layer = keys[1] if keys[0] == "layers" else None
        module = ".".join(["layers", "{l}", *keys[2:-1]] if layer is not None else keys[:-1])
        turned = is_linear(module) and not family.inputs_first and keys[-1] == "w"
        names[f"{family.table[module].format(l=layer)}.{LEAVES[keys[-1]]}"] = (path, spec, turned)
    return names


def weight_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Tensor name -> the safetensors file that holds it, single or sharded.

    Raises InputError where there are none, where they are pickles, or where an index points outside the folder.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.exists() and not single.exists():  # where there are both, transformers takes the single file too
        try:
            shards = json_files.read(index)["weight_map"]
            files = {name: folder / pathlib.PurePath(file).name for name, file in shards.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} cannot be read: {error!r}.") from None
        strays = [file for file in shards.values() if pathlib.PurePath(file).name != file or file in ("", "..")]
        if strays:
            raise InputError(f"{index}: {strays[0]!r} is not a plain file name inside the folder.")
        missing = sorted({file.name for file in files.values() if not os.path.isfile(file)})  # (of any name)
        if missing:
            raise InputError(
                f"{folder}: {', '.join(missing[:3])} named by {index.name} is missing; copy the folder again."
            )
        return files
    if not single.exists():
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise InputError(
                f"{folder} has only pickled weights ({pickles[0]}), which can run code when loaded; "
                "convert them to safetensors first (transformers: save_pretrained)."
            )
        raise InputError(f"{folder} has no model.safetensors and no model.safetensors.index.json.")
    with open_file(single) as file:
        return dict.fromkeys(file.keys(), single)


def _shard_faults(files: Mapping[str, pathlib.Path]) -> list[str]:
    """Where the index and the shards do not tell the same of a tensor."""
    faults, seen = [], {}
    for path in sorted(set(files.values())):
        with open_file(path) as file:
            own = list(file.keys())
        faults += [f"{name} is in {seen[name]} and in {path.name}" for name in own if name in seen]
        faults += [f"{name} is in {path.name}, but not in the index" for name in own if name not in files]
        seen |= dict.fromkeys(own, path.name)
    return faults


def open_file(path: pathlib.Path):
    """A safetensors file, as a context. Raises InputError where it cannot be read."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); download or convert it again."
        ) from None


def load_params(folder: pathlib.Path, config: LMConfig, known_faults: Sequence[str] = ()) -> Params:
    """Params from a folder, tensor by tensor, in `config.dtype`.

    Args:
      known_faults: what is wrong with its config.json, to be told with the rest.

    Raises InputError with all of them and every unknown, missing, doubled, misshapen and mistyped tensor at once.
    """
    files = weight_files(folder)
    wanted = published_names(config)
    found, faults = _by_published_name(config, files, wanted)
    faults = [*known_faults, *_shard_faults(files), *faults]
    forms = _forms(files)
    for name in sorted(found):
        _, spec, transposed = wanted[name]
        (shape, kind), expected = forms[found[name]], list(spec.shape[::-1] if transposed else spec.shape)
        if shape != expected:
            faults.append(f"{name} has shape {shape}, expected {expected}" if shape else f"unreadable {name}")
        elif kind not in DTYPES:
            faults.append(f"{name} is of type {kind}, not of {', '.join(DTYPES)}")
    if faults:
        raise InputError(f"{folder}: weights do not fit config.json: {together(faults)}.")
    placed = dict(jax.tree_util.tree_leaves_with_path(placement(config)))

    def read(name: str) -> jax.Array:
        path, spec, turned = wanted[name]
        where = files[found[name]], found[name]
        return _read(*where, spec, turned) if sharding.alone() else _read_shards(*where, spec, turned, placed[path])

    leaves = {path: read(name) for name, (path, _, _) in wanted.items()}
    treedef = jax.tree.structure(abstract(config), is_leaf=is_spec)
    order = [path for path, _ in jax.tree_util.tree_leaves_with_path(abstract(config), is_leaf=is_spec)]
    return jax.tree.unflatten(treedef, [leaves[path] for path in order])


def _by_published_name(
    config: LMConfig, files: Mapping[str, pathlib.Path], wanted: Mapping[str, tuple]
) -> tuple[dict[str, str], list[str]]:
    """(published name -> name in the files, what is wrong): checkpoints of the bare model leave its prefix out."""
    family, found, faults = FAMILIES[config.family], {}, []
    for name in sorted(files):
        full = next((one for one in (name, f"{family.base}.{name}") if one in wanted), None)
        if full in found:
            faults.append(f"{name} is there twice, also as {found[full]}")
        elif full is not None:
            found[full] = name
        elif not (name.endswith(family.buffers) or (config.tied_head and name == "lm_head.weight")):
            faults.append(f"unknown {name}")  # (some tied checkpoints repeat the embedding)
    return found, faults + [f"missing {name}" for name in sorted(wanted.keys() - found.keys())]


def _forms(files: Mapping[str, pathlib.Path]) -> dict[str, tuple[list[int], str]]:
    """Tensor name -> (shape, type in the file); empty where the file does not hold it, whatever its index says."""
    forms: dict[str, tuple[list[int], str]] = {name: ([], "") for name in files}
    for path in sorted(set(files.values())):
        with open_file(path) as file:
            for name in set(file.keys()) & files.keys():
                if files[name] == path:
                    part = file.get_slice(name)
                    forms[name] = list(part.get_shape()), part.get_dtype()
    return forms


def _read(path: pathlib.Path, name: str, spec: Spec, transposed: bool) -> jax.Array:
    """One tensor, piece by piece into the memory that its array keeps: the host never holds it twice.

    The file is opened anew for each tensor, as what was mapped into memory of it goes with the mapping.
    """
    whole = _aligned(spec.shape, spec.dtype)
    turned = whole.T if transposed else whole
    with open_file(path) as file:
        rows = file.get_slice(name)
        step = max(1, PIECE * len(turned) // max(whole.nbytes, 1))
        for start in range(0, len(turned), step):
            stop = min(start + step, len(turned))
            turned[start:stop] = rows[start:stop]
    return jax.device_put(whole, may_alias=True)


def _read_shards(
    path: pathlib.Path, name: str, spec: Spec, transposed: bool, placed: jax.sharding.PartitionSpec
) -> jax.Array:
    """One tensor, straight into its shards: each process reads the parts that its own devices hold, each part once."""
    read: dict[tuple, np.ndarray] = {}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        turned = index[::-1] if transposed else index
        key = tuple((one.start, one.stop) for one in index)
        if key not in read:
            with open_file(path) as file:
                found = file.get_slice(name)[turned]
            read[key] = np.ascontiguousarray(found.T if transposed else found).astype(spec.dtype)
        return read[key]

    return jax.make_array_from_callback(spec.shape, sharding.named(placed), part)


def _aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An empty array that begins where XLA wants its own to begin, so that it can become one without a copy."""
    dtype = np.dtype(dtype)
    raw = np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def stored_dtype(folder: pathlib.Path) -> str:
    """The dtype a folder's weights are kept in: that of its largest kind, by number of tensors.

    Kinds that cannot be read do not count: `load_params` names every weight of them.
    """
    files = weight_files(folder)
    tally: dict[str, int] = {}
    for path in sorted(set(files.values())):
        with open_file(path) as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                kind = file.get_slice(name).get_dtype()
                tally[kind] = tally.get(kind, 0) + 1
    if not tally:
        raise InputError(f"{folder}: its safetensors files hold no weights; download or convert them again.")
    kind = max(tally, key=lambda key: (key in DTYPES, tally[key]))
    return DTYPES.get(kind, "float32")
