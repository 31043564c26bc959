"""One abstract description of a model's parameters (shape, dtype, logical axes); all else is derived from it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from emsedit_jax import sharding
from emsedit_jax.lm.config import LMConfig

# A model's params: {"embed": {"w"}, "layers": ({"attn": {...}, "mlp": {...}, ...}, ...), "norm": {"w"}, "head": {"w"}},
# with what its family has besides.
# Layers are separate entries, not one stacked array: XLA then uses each weight where it lies, where a scan over a stack
# copies every layer before use, and on CPU the unrolled program also compiles faster.
Params = dict


SPLIT = frozenset("fhgV")  # axes that lie over the mesh's `model`


class Spec(NamedTuple):
    """Shape, dtype and logical axes of one parameter; axes are the package's letters, `V` for the vocabulary."""

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]


def is_spec(leaf: object) -> bool:
    """True for the leaves of a spec tree, which are tuples themselves."""
    return isinstance(leaf, Spec)


def _linear(config: LMConfig, k: int, v: int, axes: tuple[str, str], bias: bool) -> dict[str, Spec]:
    weight = {"w": Spec((k, v), config.dtype, axes)}
    return weight | ({"b": Spec((v,), config.dtype, axes[1:])} if bias else {})


def _norm(c: LMConfig, width: int, axis: str) -> dict[str, Spec]:
    gain = Spec((width,), c.dtype, (axis,))
    return {"w": gain, "b": gain} if c.layer_norm else {"w": gain}


def _attention(c: LMConfig) -> dict[str, dict[str, Spec]]:
    out = {"o": _linear(c, c.h * c.e, c.d, ("h", "d"), c.output_bias)}
    if c.fused_qkv:
        return {"qkv": _linear(c, c.d, (c.h + 2 * c.g) * c.e, ("d", "h"), c.attention_bias), **out}
    return {
        "q": _linear(c, c.d, c.h * c.e, ("d", "h"), c.attention_bias),
        "k": _linear(c, c.d, c.g * c.e, ("d", "g"), c.attention_bias),
        "v": _linear(c, c.d, c.g * c.e, ("d", "g"), c.attention_bias),
        **out,
    }


def _layer(c: LMConfig) -> dict:
    gate = {"gate": _linear(c, c.d, c.f, ("d", "f"), c.mlp_bias)} if c.gated else {}
    norms = ["norm_attn", *(["norm_mlp"] if not c.parallel else [])]
    norms += ["norm_attn_out", "norm_mlp_out"] if c.post_norms else []
    return {
        **{name: _norm(c, c.d, "d") for name in norms},
        **{name: _norm(c, c.e, "e") for name in (("norm_q", "norm_k") if c.qk_norm else ())},
        "attn": _attention(c),
        "mlp": {
            **gate,
            "up": _linear(c, c.d, c.f, ("d", "f"), c.mlp_bias),
            "down": _linear(c, c.f, c.d, ("f", "d"), c.mlp_bias),
        },
    }


def abstract(config: LMConfig) -> Params:
    """The tree of Specs of a model; every linear weight is [inputs, outputs]."""
    table = Spec((config.vocabulary, config.d), config.dtype, ("V", "d"))
    tree: Params = {
        "embed": {"w": table},
        "layers": tuple(_layer(config) for _ in range(config.num_layers)),
        "norm": _norm(config, config.d, "d"),
    }
    if config.learned_positions:
        tree["positions"] = {"w": Spec((config.max_length, config.d), config.dtype, ("t", "d"))}
    bias = {"b": Spec((config.vocabulary,), config.dtype, ("V",))} if config.head_bias else {}
    head = bias if config.tied_head else {"w": table, **bias}
    return tree | ({"head": head} if head else {})


def count(config: LMConfig) -> int:
    """Number of parameters; a tied head counts once."""
    return sum(int(np.prod(spec.shape)) for spec in jax.tree.leaves(abstract(config), is_leaf=is_spec))


def init(config: LMConfig, seed: int = 0, scale: float = 0.02) -> Params:
    """Random params for tests and benchmarks: normal matrices of standard deviation `scale`, gains of one."""
    specs, tree = jax.tree.flatten(abstract(config), is_leaf=is_spec)
    rng = np.random.default_rng(seed)

    def draw(spec: Spec) -> jax.Array:
        if len(spec.shape) == 1:
            return jnp.ones(spec.shape, spec.dtype)
        return jnp.asarray(rng.normal(0, scale, spec.shape).astype(np.float32), spec.dtype)

    return jax.tree.unflatten(tree, [draw(spec) for spec in specs])


def module_spec(config: LMConfig, module: str) -> Spec:
    """Shape [k, v], dtype and axes of a linear map named by its path inside a layer, such as "mlp.gate"."""
    part, name = module.split(".")
    return _layer(config)[part][name]["w"]


def placement(config: LMConfig) -> Any:
    """The tree of partition specs: over the mesh's `model` goes, of each parameter, the axis that `SPLIT` names.

    Heads, key/value heads and what else the devices do not divide stay whole on each.
    """
    whole = {letter for letter, count in _counts(config).items() if count % sharding.size(sharding.MODEL)}

    def of(spec: Spec) -> PartitionSpec:
        return PartitionSpec(*(sharding.MODEL if axis in SPLIT - whole else None for axis in spec.axes))

    return jax.tree.map(of, abstract(config), is_leaf=is_spec)


def undivided(config: LMConfig) -> list[str]:
    """In words, what of the model each device of the mesh in force holds whole, because they do not divide it."""
    words = {"f": "features of the mlp", "h": "heads", "g": "key/value heads", "V": "tokens of the vocabulary"}
    devices = sharding.size(sharding.MODEL)
    return [f"{count} {words[letter]}" for letter, count in _counts(config).items() if count % devices]


def _counts(config: LMConfig) -> dict[str, int]:
    """What there is of each axis that can be split; a fused map of q, k and v is split by both sorts of heads."""
    heads = math.gcd(config.h, config.g) if config.fused_qkv else config.h
    return {"f": config.f, "h": heads, "g": config.g, "V": config.vocabulary}
