"""The programs of a run compiled ahead of time for a mesh, from shapes alone: no weights, no data, no device."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import flops, loops
from emsedit_jax import sharding
from emsedit_jax.data.parts import dealt, pack_parts
from emsedit_jax.data.shapes import plan_shapes
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit import apart
from emsedit_jax.edit import capture as capturing
from emsedit_jax.edit.step import learn_shift
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params, abstract, is_spec, placement, undivided
from emsedit_jax.measure.score import score_batch
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.types import Batch, Sites

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
KINDS = ("prefix", "capture", "scoring", "meta gradient", "shift", "pull-back")
MICRO_BATCH = 4


class Compiled(NamedTuple):
    """What the compiler says of one program, per device."""

    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    flop: float | None  # None: the compiler does not say
    collectives: dict[str, dict[str, float]]  # kind -> count, MB
    useful_flop: float  # of all devices together, see `flops`
    of_model: bool  # in the model's dtype; else float32
    out: Any  # the outputs' shapes, with where they lie


class Sizes(NamedTuple):
    """What a batch is made of."""

    facts: int
    prompt: int = 16  # tokens
    answer: int = 4


def passes(sizes: Sizes, parts: int, token_rule: str) -> Batch:
    """An edit batch of made-up prompts in one pass; their lengths spread around the mean by a third."""
    rng = np.random.default_rng(0)
    items = []
    for _ in range(sizes.facts):
        asked, answered = (max(1, round(mean * rng.uniform(2 / 3, 4 / 3))) for mean in (sizes.prompt, sizes.answer))
        items.append(TokenItem((1,) * (asked + answered - 1), (1,) * answered, asked))
    shapes = plan_shapes(dealt([items], parts), token_rule, sharding.row_lanes())
    return pack_parts(items, MICRO_BATCH, token_rule, shapes, parts)


class Plan:
    """The programs of editing, learning and scoring on a mesh, compiled one after the other."""

    def __init__(self, mesh: Mesh, editor: Editor, learning: Learning | None, sizes: Sizes, token_rule: str):
        self._mesh, self._config, self._editor, self._learning = mesh, editor.config, editor, learning
        self._state = self._placed(jax.eval_shape(lambda: trajectory.init(editor, 0, learning)), P())
        with jax.set_mesh(mesh):
            self._batch = passes(sizes, sharding.size(sharding.DATA), token_rule)
            self._params = self._given_params()
            specs = [sharding.spec_of_edit(group) for group in editor.sites]
            self._deltas = tuple(
                self._struct((len(group.layers), group.k, group.v), "float32", spec)
                for group, spec in zip(editor.sites, specs, strict=True)
            )
            self._total = tuple(
                (self._struct((group.k, group.v), "float32", P(*spec[1:])),) * len(group.layers)
                for group, spec in zip(editor.sites, specs, strict=True)
            )
        self._packed = self._placed(self._batch, P(sharding.DATA))

    @property
    def config(self) -> LMConfig:
        """Of the model."""
        return self._config

    @property
    def undivided(self) -> list[str]:
        """What of the model each device holds whole, in words."""
        with jax.set_mesh(self._mesh):
            return undivided(self._config)

    @property
    def weights_bytes(self) -> int:
        """Of the model, on each device."""
        return sum(_bytes_held(leaf) for leaf in jax.tree.leaves(self._params))

    @property
    def deltas_bytes(self) -> int:
        """Of one set of edits, on each device."""
        return sum(_bytes_held(leaf) for leaf in self._deltas)

    @property
    def networks_bytes(self) -> int:
        """Of networks, moments and gradients, on each device."""
        return sum(_bytes_held(leaf) for leaf in jax.tree.leaves(self._state))

    def programs(self, wanted: Sequence[str] = KINDS) -> Iterator[tuple[str, Compiled]]:
        """Name and account of each program of the kinds wanted, compiled when asked for."""
        whole = self._config, self._editor.sites
        count, params = flops.Prompts([self._whole_batch()]), self._params
        below = self._compile(capturing.prefix, whole, (params, self._packed), flops.prefix(*whole, count))
        yield "prefix", below
        passed = (params, self._deltas, below.out, self._packed)
        captured = self._compile(capturing.capture, whole, passed, flops.capture(*whole, count))
        yield "capture", captured
        if "scoring" in wanted:
            yield "scoring", self._compile(score_batch, whole, passed, flops.scoring(*whole, count))
        if "meta gradient" in wanted and self._learning is not None:
            given, useful = (*passed, 1.0, self._total), flops.weight_gradient(*whole, count)
            yield "meta gradient", self._compile(gradient.add_equiv, whole, given, useful)
        if "solve" in wanted and self._editor.method.rule.ridge is not None:
            coefficients = tuple(self._struct((len(group.layers),), "float32", P()) for group in self._editor.sites)
            given = captured.out.keys, captured.out.grads, coefficients
            yield "solve", self._compile(_solves, (self._editor.sites,), given, 0.0, of_model=False)
        for i in range(self._editor.iters if len(self._editor.specs) > 1 else 1):
            kind = self._editor.sites, self._editor.method.rule, self._editor.structure(i)
            given = self._deltas, self._state.thetas[i], self._state.stats[i], captured.out
            useful = flops.shift(*kind, count.rows)
            yield f"shift, step {i + 1}", self._compile(learn_shift, kind, given, useful, of_model=False)
            if "pull-back" in wanted and self._learning is not None:
                taught = self._compile(learn_shift, kind, given, useful, of_model=False, teach=True)
                given, useful = (taught.out.pull, self._total), flops.pull_back(*kind, count.rows)
                yield f"pull-back, step {i + 1}", self._compile(gradient.pull, (), given, useful, of_model=False)

    def _compile(
        self, function: Any, static: tuple, given: tuple, useful: float, *, of_model: bool = True, **fixed: Any
    ) -> Compiled:
        with jax.set_mesh(self._mesh):
            compiled = function.lower(*static, *given, **fixed).compile()
            again = loops.uncounted(functools.partial(function, *static, **fixed), *given) / self._mesh.size
        memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
        costs = costs[0] if isinstance(costs, list) else costs
        out = jax.tree.map(
            lambda shape, lies: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=lies),
            compiled.out_info,
            compiled.output_shardings,
        )
        return Compiled(
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes,
            memory.temp_size_in_bytes,
            None if not costs or "flops" not in costs else costs["flops"] + again,
            collectives(compiled.as_text()),
            useful,
            of_model,
            out,
        )

    def _given_params(self) -> Params:
        return jax.tree.map(
            lambda spec, lies: self._struct(spec.shape, spec.dtype, lies),
            abstract(self._config),
            placement(self._config),
            is_leaf=is_spec,
        )

    def _struct(self, shape: tuple[int, ...], dtype: Any, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self._mesh, spec))

    def _placed(self, tree: Any, spec: P) -> Any:
        return jax.tree.map(lambda leaf: self._struct(leaf.shape, leaf.dtype, spec), tree)

    def _whole_batch(self) -> Batch:
        """The batch with its indices in one rectangle, for counting what is no padding."""
        batch, parts = self._batch, self._batch.parts
        each = batch.answer_at_a.shape[0] // parts
        room = batch.tokens_bt.size // parts
        first_a = np.repeat(np.arange(parts), each) * room
        used_a = batch.answer_at_a < room
        return dataclasses.replace(
            batch, answer_at_a=np.where(used_a, batch.answer_at_a + first_a, batch.tokens_bt.size)
        )


@functools.partial(jax.jit, static_argnums=0)
@jax.default_matmul_precision("highest")
def _solves(sites: Sites, x: tuple, y: tuple, lambdas: tuple) -> tuple:
    """The ridge solves of all groups, their results where they were solved."""
    return tuple(map(apart.in_pieces, sites, x, y, lambdas))


def _bytes_held(leaf: jax.ShapeDtypeStruct) -> int:
    """On each device."""
    assert leaf.sharding is not None
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * jnp.dtype(leaf.dtype).itemsize


def collectives(text: str) -> dict[str, dict[str, float]]:
    """Kind -> count and MB moved, of a compiled program's text; what a loop repeats is counted as often as it runs."""
    bodies, entry = _computations(text)
    found: dict[str, list[float]] = {kind: [0, 0.0] for kind in COLLECTIVES}
    for kind, size, times in _walk(bodies, entry, 1):
        found[kind][0] += times
        found[kind][1] += times * size / 1e6
    return {kind: {"count": count, "mb": round(mb, 2)} for kind, (count, mb) in found.items() if count}


def _computations(text: str) -> tuple[Mapping[str, list[str]], str]:
    """(lines of each computation of an HLO module, the name of the one where it begins)."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        begins = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
        if begins:
            name = begins[2]
            bodies[name] = []
            entry = name if begins[1] else entry
        elif name:
            bodies[name].append(line.strip())
    return bodies, entry


def _walk(bodies: Mapping[str, list[str]], name: str, times: int) -> Iterator[tuple[str, int, int]]:
    """(kind, bytes, how often) of every collective that a computation comes to."""
    for line in bodies.get(name, ()):
        found = re.search(r"= (\(.*?\)|\S+) ([\w\-]+)\(", line)
        if found is None:
            continue
        shape, op = found[1], found[2].removesuffix("-start")
        if op in COLLECTIVES:
            yield op, _size(shape), times
        often = re.search(r'known_trip_count"?:\{"n":"(\d+)"', line) if op == "while" else None
        for inner in re.findall(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)", line):
            yield from _walk(bodies, inner, times * (int(often[1]) if often else 1))


def _size(shape: str) -> int:
    """Bytes of an HLO shape, of all arrays where it is a tuple."""
    return sum(
        BYTES.get(kind, 0) * int(np.prod([int(length) for length in lengths.split(",") if length]))
        for kind, lengths in re.findall(r"(\w+)\[([\d,]*)\]", shape)
    )
