"""A random language model small enough for every test, edit sites of two shapes in it, and prompts for it."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.data.packing import PackShape, pack
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit import capture, sites
from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.lm import params
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.meta.methods import METHODS, net_specs
from emsedit_jax.meta.trajectory import Editor
from emsedit_jax.types import Batch, Deltas, EditTask, Sites

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


LENGTHS = ((5, 2), (7, 3), (5, 1), (4, 3))  # prompt and answer tokens of a task's prompts: 9 answer rows


def plan(
    seeds: Sequence[int],
    lengths: Sequence[tuple[int, int]] = LENGTHS,
    shape: PackShape = SHAPE,
    pass_tokens: int | None = None,
    rule: str = "ans",
) -> EditPlan:
    """Edit batches of random prompts of each kind, in micro-batches of two, packed and cut into passes as a run does.

    A batch's prompts depend on its seed and the lengths alone.
    """
    items = {kind: [prompts(lengths, 10 * seed + number) for seed in seeds] for number, kind in enumerate(KINDS)}
    rows = np.arange(len(seeds) * len(lengths), dtype=np.int32).reshape(len(seeds), -1)
    return EditPlan(rows, dict.fromkeys(KINDS, (shape,)), 2, rule, [[]] * len(seeds), items, pass_tokens)


def task(seed: int = 0, *args, **kwargs) -> EditTask:
    """One such batch."""
    return plan([seed], *args, **kwargs)[0]


def editor(name: str, iters: int = 2, num_seq: int = 2, **changes) -> Editor:
    """An editor at work on the sites, with small networks."""
    method = METHODS[name]
    specs = net_specs(method, iters=iters, lr=0.02, num_seq=num_seq, rank=4, n_blocks=1)
    return Editor(CONFIG, SITES, method, specs, iters)._replace(**changes)


def given(params: params.Params, batches: Sequence[Batch]) -> capture.Prompts:
    """One kind of a task, with its prefixes."""
    return capture.prompts(CONFIG, SITES, params, batches)


def worn(tree, seed: int = 0, scale: float = 0.05):
    """The tree with noise on every float: networks as training leaves them, no number 0 or 1 any more."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape), leaf.dtype), tree)


def host(tree):
    """A copy that no donation can take."""
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def assert_close(found, expected, rel: float = 1e-5, floor: float = 0.0) -> None:
    """Every leaf agrees within `rel` of its largest entry, or of `floor` times the largest of all leaves."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(expected)]
    least = floor * max((np.abs(leaf).max(initial=0) for leaf in leaves), default=0.0)
    for one, leaf in zip(jax.tree.leaves(found), leaves, strict=True):
        np.testing.assert_allclose(one, leaf, rtol=0, atol=rel * max(np.abs(leaf).max(initial=0), least))


@contextlib.contextmanager
def compilations(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What JAX compiles inside, a line for each program, single operations too; filled at the end."""
    lines: list[str] = []
    caplog.clear()
    with jax.log_compiles():
        yield lines
    lines += [line for line in map(logging.LogRecord.getMessage, caplog.records) if line.startswith("Compiling")]


def random_deltas(sites: Sites = SITES, seed: int = 0, scale: float = 0.1) -> Deltas:
    """An edit of every site."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(scale * rng.normal(size=(len(g.layers), g.k, g.v)), jnp.float32) for g in sites)
