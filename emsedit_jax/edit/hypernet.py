"""The hypernetwork: residual low-rank blocks on [key; value gradient], one network per site shape."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsedit_jax.types import SiteGroup, Sites, Theta


def relu(u: Array) -> Array:
    """max(u, 0) with derivative 1 at exactly 0.

    B starts at 0, so every pre-activation starts at exactly 0: with jax.nn.relu's derivative of 0 no block would learn.
    """
    return jnp.where(u >= 0, u, 0.0)


class Block(nnx.Module):
    """`z <- scale * relu(z A B + bias) + shift + z`, with scale and shift of the site's own."""

    def __init__(self, width: int, rank: int, num_sites: int, rngs: nnx.Rngs):
        self.A = nnx.Param(rngs.normal((width, rank), jnp.float32))
        self.B = nnx.Param(jnp.zeros((rank, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.scale = nnx.Param(jnp.ones((num_sites, width), jnp.float32))
        self.shift = nnx.Param(jnp.zeros((num_sites, width), jnp.float32))

    def __call__(self, z_snc: Float[Array, "s n c"]) -> Float[Array, "s n c"]:
        u_snc = z_snc @ self.A[...] @ self.B[...] + self.bias[...]  # one product for all sites
        scale_s1c, shift_s1c = self.scale[...][:, None], self.shift[...][:, None]
        return scale_s1c * relu(u_snc) + shift_s1c + z_snc


class HyperNet(nnx.Module):
    """Normalised rows to pseudo-keys and pseudo-gradients, with each site's learning rate and log ridge coefficient."""

    def __init__(self, k: int, v: int, rank: int, n_blocks: int, num_sites: int, lr: float, rngs: nnx.Rngs):
        self.k = k
        self.blocks = nnx.List([Block(k + v, rank, num_sites, rngs) for _ in range(n_blocks)])
        self.lr = nnx.Param(jnp.full((num_sites, 1), lr, jnp.float32))
        self.lamda = nnx.Param(jnp.zeros((num_sites, 1), jnp.float32))

    def __call__(self, z_snc: Float[Array, "s n c"]) -> tuple[Float[Array, "s n k"], Float[Array, "s n v"]]:
        for block in self.blocks:
            z_snc = block(z_snc)
        return z_snc[..., : self.k], z_snc[..., self.k :]


class NetSpec(NamedTuple):
    """The static half of one network: what it takes to rebuild it around its parameters."""

    rank: int
    n_blocks: int
    lr: float


def build(group: SiteGroup, spec: NetSpec, key: Array) -> HyperNet:
    """The network of one site group, freshly drawn from a PRNG key."""
    return HyperNet(group.k, group.v, spec.rank, spec.n_blocks, len(group.layers), spec.lr, nnx.Rngs(key))


@functools.cache
def graphdef(group: SiteGroup, spec: NetSpec) -> nnx.GraphDef:
    """The network's structure without values; with `theta` it makes a callable again."""
    return nnx.split(nnx.eval_shape(lambda: build(group, spec, jax.random.key(0))))[0]


def init(sites: Sites, spec: NetSpec, key: Array) -> Theta:
    """Fresh parameters, one plain dict per site group: A ~ N(0, 1), B = bias = shift = lamda = 0, scale = 1."""
    keys = jax.random.split(key, len(sites))
    return tuple(nnx.to_pure_dict(nnx.state(build(group, spec, one))) for group, one in zip(sites, keys, strict=True))


def merge(group: SiteGroup, spec: NetSpec, theta: dict) -> HyperNet:
    """The network of one group with the given parameters in it."""
    return nnx.merge(graphdef(group, spec), nnx.State(theta))
