"""Hugging Face model folders: one mapping table per family, closed on both sides; safetensors, without torch."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from emsedit_jax.errors import InputError
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params, Spec, abstract, is_spec

# Published module name by the module's path in our tree; {l} is the layer.
LLAMA = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "layers.{l}.norm_attn": "model.layers.{l}.input_layernorm",
    "layers.{l}.norm_mlp": "model.layers.{l}.post_attention_layernorm",
    "layers.{l}.attn.q": "model.layers.{l}.self_attn.q_proj",
    "layers.{l}.attn.k": "model.layers.{l}.self_attn.k_proj",
    "layers.{l}.attn.v": "model.layers.{l}.self_attn.v_proj",
    "layers.{l}.attn.o": "model.layers.{l}.self_attn.o_proj",
    "layers.{l}.mlp.gate": "model.layers.{l}.mlp.gate_proj",
    "layers.{l}.mlp.up": "model.layers.{l}.mlp.up_proj",
    "layers.{l}.mlp.down": "model.layers.{l}.mlp.down_proj",
}
TABLES = {"llama": LLAMA}
LEAVES = {"w": "weight", "b": "bias"}
IGNORED_ENDINGS = (".rotary_emb.inv_freq",)  # a buffer that old checkpoints carry; computed here
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def published_modules(config: LMConfig) -> dict[str, tuple[int, str]]:
    """Published name of every linear map inside the layers -> (layer, module path inside the layer)."""
    return {
        theirs.format(l=layer): (layer, ours.removeprefix("layers.{l}."))
        for layer in range(config.num_layers)
        for ours, theirs in TABLES[config.family].items()
        if is_linear(ours)
    }


def is_linear(module: str) -> bool:
    """True for the maps that are stored [outputs, inputs] in files and used as [inputs, outputs] here."""
    return ".attn." in module or ".mlp." in module


def published_names(config: LMConfig) -> dict[str, tuple[tuple, Spec, bool]]:
    """Published tensor name -> (path in our tree, Spec, transposed in the file)."""
    table, names = TABLES[config.family], {}
    for path, spec in jax.tree_util.tree_leaves_with_path(abstract(config), is_leaf=is_spec):
        keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
        layer = keys[1] if keys[0] == "layers" else None
        module = ".".join(["layers", "{l}", *keys[2:-1]] if layer is not None else keys[:-1])
        names[f"{table[module].format(l=layer)}.{LEAVES[keys[-1]]}"] = (path, spec, is_linear(module))
    return names


def weight_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Tensor name -> the safetensors file that holds it, single or sharded.

    Raises InputError where there are none, where they are pickles, or where an index points outside the folder.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {name: folder / pathlib.PurePath(file).name for name, file in shards.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} cannot be read: {error!r}.") from None
        strays = [file for file in shards.values() if pathlib.PurePath(file).name != file]
        if strays:
            raise InputError(f"{index}: {strays[0]!r} is not a plain file name inside the folder.")
        missing = sorted({file.name for file in files.values() if not file.exists()})
        if missing:
            raise InputError(
                f"{folder}: {', '.join(missing[:3])} named by {index.name} is missing; copy the folder again."
            )
        return files
    single = folder / "model.safetensors"
    if not single.exists():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        if pickles:
            raise InputError(
                f"{folder} has only pickled weights ({pickles[0]}), which can run code when loaded; "
                "convert them to safetensors first (transformers: save_pretrained)."
            )
        raise InputError(f"{folder} has no model.safetensors and no model.safetensors.index.json.")
    with _open(single) as file:
        return dict.fromkeys(file.keys(), single)


def _open(path: pathlib.Path):
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); download or convert it again."
        ) from None


def load_params(folder: pathlib.Path, config: LMConfig) -> Params:
    """Params from a folder, tensor by tensor, in `config.dtype`.

    Raises InputError listing every unknown, missing and misshapen tensor at once.
    """
    wanted, files = published_names(config), weight_files(folder)
    present = {name for name in files if not name.endswith(IGNORED_ENDINGS)}
    if config.tied_head:
        present.discard("lm_head.weight")  # some tied checkpoints repeat the embedding
    faults = [f"unknown {name}" for name in sorted(present - wanted.keys())]
    faults += [f"missing {name}" for name in sorted(wanted.keys() - present)]
    opened = {path: _open(path) for path in sorted({files[name] for name in present & wanted.keys()})}
    for name in sorted(present & wanted.keys()):
        _, spec, transposed = wanted[name]
        try:
            shape = tuple(opened[files[name]].get_slice(name).get_shape())
        except SafetensorError as error:
            faults.append(f"unreadable {name} ({error})")
            continue
        expected = spec.shape[::-1] if transposed else spec.shape
        if shape != expected:
            faults.append(f"{name} has shape {list(shape)}, expected {list(expected)}")
    if faults:
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise InputError(f"{folder}: weights do not fit config.json: {'; '.join(faults[:6])}{more}.")
    leaves = {path: _read(opened[files[name]], name, spec, t) for name, (path, spec, t) in wanted.items()}
    treedef = jax.tree.structure(abstract(config), is_leaf=is_spec)
    order = [path for path, _ in jax.tree_util.tree_leaves_with_path(abstract(config), is_leaf=is_spec)]
    return jax.tree.unflatten(treedef, [leaves[path] for path in order])


def _read(file, name: str, spec: Spec, transposed: bool) -> jax.Array:
    value = file.get_tensor(name)
    if transposed:
        value = np.ascontiguousarray(value.T)
    return jnp.asarray(value, dtype=spec.dtype)


def stored_dtype(folder: pathlib.Path) -> str:
    """The dtype a folder's weights are kept in: that of its largest kind, by number of tensors."""
    files = weight_files(folder)
    tally: dict[str, int] = {}
    for path in sorted(set(files.values())):
        with _open(path) as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                kind = file.get_slice(name).get_dtype()
                tally[kind] = tally.get(kind, 0) + 1
    if not tally:
        raise InputError(f"{folder}: its safetensors files hold no weights; download or convert them again.")
    kind = max(tally, key=lambda key: tally[key])
    if kind not in DTYPES:
        raise InputError(f"{folder}: weights of type {kind} are not supported (supported: {', '.join(DTYPES)}).")
    return DTYPES[kind]
