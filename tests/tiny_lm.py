"""A random language model small enough for every test, edit sites of two shapes in it, and prompts for it."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from emsedit_jax.data.packing import PackShape, pack
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit import sites
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.lm import params
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.types import Batch, Deltas, Sites

CONFIG = LMConfig(  # no two widths alike, so that a mixed-up axis shows
    family="llama",
    vocabulary=31,
    d=8,
    f=12,
    h=4,
    g=2,
    e=6,
    num_layers=3,
    norm_eps=1e-5,
    rope_theta=100.0,
)
SITES = sites.resolve(CONFIG, ["model.layers.{1,2}.mlp.gate_proj", "model.layers.2.mlp.down_proj"])
SHAPE = PackShape(b=2, t=24, a=16, n=16)
SPECS = (NetSpec(rank=4, n_blocks=1, lr=0.02), NetSpec(rank=2, n_blocks=1, lr=0.02))  # of two edit steps


def weights(config: LMConfig = CONFIG, seed: int = 0) -> params.Params:
    """Random params whose logits spread over a few nats."""
    return params.init(config, seed, scale=0.5)


def prompts(lengths: Sequence[tuple[int, int]], seed: int = 0) -> list[TokenItem]:
    """Random prompts and answers of the given lengths in tokens."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, CONFIG.vocabulary, count).tolist())

    drawn = [(draw(asked), draw(answered)) for asked, answered in lengths]
    return [TokenItem((*prompt, *answer[:-1]), answer, len(prompt)) for prompt, answer in drawn]


def packed(items: Sequence[TokenItem], shape: PackShape = SHAPE, micro_batch_size: int = 2, rule: str = "ans") -> Batch:
    """One batch, as editing gets it."""
    return pack(items, micro_batch_size, rule, shape)


def random_deltas(sites: Sites = SITES, seed: int = 0, scale: float = 0.1) -> Deltas:
    """An edit of every site."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(scale * rng.normal(size=(len(g.layers), g.k, g.v)), jnp.float32) for g in sites)
