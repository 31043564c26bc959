"""Many devices: the mesh, where each array lies on it, and what is done apart on each part of a pass.

A mesh has two axes. Over `data` go the prompts of a pass, and the edit sites of a solve; over `model` the language
model's weights and what is as wide. The mesh is JAX's own context (`jax.set_mesh`): with none in force, or on one
device, everything runs as if this file did not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from emsedit_jax.errors import InputError
from emsedit_jax.types import LANES, SiteGroup

DATA, MODEL = "data", "model"
ROWS = P(DATA)  # split along the first axis: the passes' parts, one after the other
SITES = P(DATA)  # likewise the sites of a solve
WHOLE = P()
MOST_BYTES = 2**26  # of an array of several processes that a device is to hold whole


def make_mesh(data: int, model: int, devices: Sequence[jax.Device] | None = None) -> Mesh | None:
    """The mesh of so many by so many devices, -1 for the rest; None where that is a single one.

    Raises InputError where there are not so many devices, or where some would be left idle.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    given = f"--config.mesh.data={data} --config.mesh.model={model}"
    if data == model == -1:
        raise InputError(f"{given}: only one of them can be -1 (all devices that are left); see docs/DEVICES.md.")
    fixed = model if data == -1 else data
    if -1 in (data, model):
        if count % fixed:
            raise InputError(f"{given}: {count} devices cannot be divided by {fixed}; name a divisor of {count}.")
        data, model = (count // fixed, model) if data == -1 else (data, count // fixed)
    if data * model > count:
        raise InputError(f"{given}: {data * model} devices are asked for, but there are {count}; name fewer.")
    if data * model < count and jax.process_count() > 1:
        idle = f"of the {count} devices of all processes {count - data * model} would be idle"
        raise InputError(f"{given}: {idle}; multiplied they must give {count}.")
    return None if data * model == 1 else mesh_over(data, model, devices)


def mesh_over(data: int, model: int, devices: Sequence[Any]) -> Mesh:
    """The mesh of the first so many by so many of the devices, or of descriptions of devices.

    Its axes are `Auto`: layouts are asked for where they matter, and XLA's partitioner carries them through the model.
    With `Explicit` axes every product over a divided axis, in every family's layers, would have to name its result's.
    """
    grid = np.array(devices[: data * model], dtype=object).reshape(data, model)
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def agreed(value: int) -> int:
    """The first process's value, in all of them."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def carried() -> Callable[[], object]:
    """What a thread has to call so that the mesh now in force, which is this thread's own, is in force there too."""
    mesh = jax.sharding.get_mesh()
    return lambda: None if mesh.empty else jax.set_mesh(mesh)


def size(axis: str) -> int:
    """Devices along an axis of the mesh in force; 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)


def alone() -> bool:
    """Whether there is no mesh in force, or one of a single device."""
    return size(DATA) * size(MODEL) == 1


def row_lanes() -> int:
    """What a part's captured rows are filled up to a multiple of: all devices divide those of all parts together.

    The parts' rows are one system in the end, where every row counts that is there for nothing.
    """
    return math.lcm(LANES // math.gcd(LANES, size(DATA)), size(MODEL))


def over_data(function: Callable[..., Any], shared: tuple, spread: tuple, out: Any, parts: int) -> Any:
    """`function(*shared, *spread)`, on each device of `data` with its own part of what is spread.

    Args:
      shared: trees that every part sees whole.
      spread: trees of arrays with the parts one after the other along the first axis.
      out: a spec, or a tree of specs, of what comes back: `ROWS`, `WHOLE` (see `total`), or a spec with `data` in it.
      parts: of which the spread arrays are made. Raises ValueError where the mesh has another number.
    """
    if parts != size(DATA):
        raise ValueError(f"a pass in {parts} parts on a mesh with {size(DATA)} along {DATA}")
    if parts == 1:
        return function(*shared, *spread)
    return jax.shard_map(
        lambda shared, spread: function(*shared, *spread),
        in_specs=(WHOLE, ROWS),
        out_specs=out,
        axis_names={DATA},
        check_vma=False,
    )(shared, spread)


def total(tree: Any) -> Any:
    """Inside `over_data`: the sum over all parts."""
    return jax.lax.psum(tree, DATA) if size(DATA) > 1 else tree


def over_sites(function: Callable[..., Any], *arrays_s: jax.Array) -> Any:
    """`function(*arrays_s)`, each device of `data` with some of the sites; all results have the sites in front.

    Where the devices do not divide the sites, sites of ones are added and their results dropped.
    """
    devices = size(DATA)
    if devices == 1:
        return function(*arrays_s)
    count = arrays_s[0].shape[0]
    more = -count % devices

    def filled(x_s: jax.Array) -> jax.Array:
        return jnp.concatenate([x_s, jnp.ones((more, *x_s.shape[1:]), x_s.dtype)]) if more else x_s

    found = jax.shard_map(function, in_specs=SITES, out_specs=SITES, axis_names={DATA}, check_vma=False)(
        *map(filled, arrays_s)
    )
    return jax.tree.map(lambda x_s: x_s[:count], found)


def lay(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Asks for a layout inside a jitted function; an axis that the mesh does not divide stays whole."""
    if alone():
        return x
    return jax.lax.with_sharding_constraint(x, dividing(x.shape, axes))


def lay_edit(group: SiteGroup, x_skv: jax.Array) -> jax.Array:
    """The layout of whatever is as large as the sites' weights: as these lie over `model`, whole along `data`."""
    return lay(x_skv, None, *of_edit(group))


def of_edit(group: SiteGroup) -> tuple[str | None, str | None]:
    """Over which axis of the mesh k and v of an edit lie."""
    return (MODEL, None) if group.wide == "k" else (None, MODEL)


def lay_whole(tree: Any) -> Any:
    """The layout of networks and statistics: each device has all of them."""
    return jax.tree.map(lambda leaf: lay(leaf, *[None] * leaf.ndim), tree)


def spec_of_edit(group: SiteGroup) -> P:
    """Where an edit [s k v] of the group lies."""
    return dividing((len(group.layers), group.k, group.v), (None, *of_edit(group)))


def lay_rows(tree: Any) -> Any:
    """The layout of captured rows [s n x] that are worked on one by one: over all devices that divide them."""
    return jax.tree.map(lambda x_snx: lay(x_snx, None, (DATA, MODEL), None), tree)


def dividing(shape: Sequence[int], axes: Sequence[str | tuple[str, ...] | None]) -> P:
    """The spec with those of the axes that divide the shape."""

    def fitting(length: int, axis: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = (axis,) if isinstance(axis, str) else axis or ()
        while names and length % math.prod(map(size, names)):
            names = names[:-1]
        return names or None

    return P(*(fitting(length, axis) for length, axis in zip(shape, axes, strict=True)))


def named(spec: P) -> NamedSharding:
    """The spec on the mesh in force."""
    return NamedSharding(jax.sharding.get_mesh(), spec)


def put(tree: Any, specs: Any = WHOLE) -> Any:
    """Host arrays that every process has, placed on the mesh in force; on the one device without a mesh.

    Args:
      specs: a spec for all, or a tree of them.
    """
    if alone():
        return jax.tree.map(jnp.asarray, tree)

    def one(x: Any, spec: P) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, named(spec), lambda index: x[index])

    specs = jax.tree.map(lambda _: specs, tree) if isinstance(specs, P) else specs
    return jax.tree.map(one, tree, specs)


class Apart:
    """An array in host memory, in the pieces that this process's devices held: nothing is gathered on any."""

    def __init__(self, x: jax.Array):
        self._shape, self._sharding = x.shape, x.sharding
        self._held: list[tuple[jax.Device, str]] = []  # (device, which piece it held); several may hold the same
        self._pieces: dict[str, np.ndarray] = {}
        for piece in x.addressable_shards:
            self._held.append((piece.device, str(piece.index)))
            if str(piece.index) not in self._pieces:
                self._pieces[str(piece.index)] = np.asarray(piece.data)

    @property
    def nbytes(self) -> int:
        """Of host memory."""
        return sum(piece.nbytes for piece in self._pieces.values())

    def together(self) -> jax.Array:
        """On the devices again."""
        pieces = [jax.device_put(self._pieces[index], device) for device, index in self._held]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, pieces)


def host(x: Any) -> np.ndarray:
    """The whole array in host memory, in every process."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return gathered(x)
    return np.asarray(jax.device_get(x))


def gathered(x: jax.Array, most: int = MOST_BYTES) -> np.ndarray:
    """The whole of an array whose pieces other processes hold; never more than so many bytes of it on a device.

    One thing along the first axis may be larger: a site of edits is gathered at a time.
    """
    length = x.shape[0] if x.ndim else 1
    each = max(1, length * most // max(x.nbytes, 1))
    if each >= length:
        return np.asarray(jax.jit(lambda x: x, out_shardings=named(WHOLE))(x))
    cut = jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=2, out_shardings=named(WHOLE))
    pieces = [np.asarray(cut(x, start, min(each, length - start))) for start in range(0, length, each)]
    return np.concatenate(pieces)
