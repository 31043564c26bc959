"""One abstract description of a model's parameters (shape, dtype, logical axes); all else is derived from it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emsedit_jax.lm.config import LMConfig

# A model's params: {"embed": {"w"}, "layers": ({"attn": {...}, "mlp": {...}, ...}, ...), "norm": {"w"}, "head": {"w"}}.
# Layers are separate entries, not one stacked array: XLA then uses each weight where it lies, where a scan over a stack
# copies every layer before use, and on CPU the unrolled program also compiles faster.
Params = dict


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


def _layer(c: LMConfig) -> dict:
    norm = {"w": Spec((c.d,), c.dtype, ("d",))}
    return {
        "norm_attn": norm,
        "attn": {
            "q": _linear(c, c.d, c.h * c.e, ("d", "h"), c.attention_bias),
            "k": _linear(c, c.d, c.g * c.e, ("d", "g"), c.attention_bias),
            "v": _linear(c, c.d, c.g * c.e, ("d", "g"), c.attention_bias),
            "o": _linear(c, c.h * c.e, c.d, ("h", "d"), c.attention_bias),
        },
        "norm_mlp": norm,
        "mlp": {
            "gate": _linear(c, c.d, c.f, ("d", "f"), c.mlp_bias),
            "up": _linear(c, c.d, c.f, ("d", "f"), c.mlp_bias),
            "down": _linear(c, c.f, c.d, ("f", "d"), c.mlp_bias),
        },
    }


def abstract(config: LMConfig) -> Params:
    """The tree of Specs of a model; every linear weight is [inputs, outputs]."""
    tree: Params = {
        "embed": {"w": Spec((config.vocabulary, config.d), config.dtype, ("V", "d"))},
        "layers": tuple(_layer(config) for _ in range(config.num_layers)),
        "norm": {"w": Spec((config.d,), config.dtype, ("d",))},
    }
    if not config.tied_head:
        tree["head"] = {"w": Spec((config.vocabulary, config.d), config.dtype, ("V", "d"))}
    return tree


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


def module_shape(config: LMConfig, module: str) -> tuple[int, int]:
    """(k, v) of a linear map named by its path inside a layer, such as "mlp.gate"."""
    part, name = module.split(".")
    return _layer(config)[part][name]["w"].shape
