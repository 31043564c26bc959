"""The programs of a run compiled ahead of time for a mesh, from shapes alone: no weights, no data, no device."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import batches, collectives, flops, loops
from benchmarks.batches import Sizes
from emsedit_jax import sharding
from emsedit_jax.edit import apart, stream
from emsedit_jax.edit import capture as capturing
from emsedit_jax.edit.step import learn_shift
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import Params, abstract, is_spec, placement, undivided
from emsedit_jax.measure.score import score_batch
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.types import Batch, Sites, Trace

KINDS = ("prefix", "capture", "scoring", "learning", "shift")


class TooLarge(Exception):
    """A program that its compiler refuses, as it takes more memory than the device has."""


class Compiled(NamedTuple):
    """What the compiler says of one program, per device. Of one pass, the largest, where a batch takes several."""

    output_bytes: int
    temporary_bytes: int
    needed_bytes: int  # beside weights, edits and networks: what it is given, what it makes, what comes of it
    flop: float | None  # None: the compiler does not say
    collectives: dict[str, dict[str, float]]  # kind -> count, MB
    useful_flop: float  # of all devices and all passes together, see `flops`
    passes: int  # how often it runs for an edit batch, in each step or loss
    of_model: bool  # in the model's dtype; else float32
    out: Any  # the outputs' shapes, with where they lie
    steps: int = 1  # how many edit steps run it alike
    waiting: tuple[int, ...] = ()  # edit steps that wait for their loss meanwhile (`Plan.waiting_bytes`)


Programs = Iterator[tuple[str, Compiled]]


class Plan:
    """The programs of editing, learning and scoring on a mesh, compiled one after the other."""

    def __init__(self, mesh: Mesh, editor: Editor, learning: Learning | None, sizes: Sizes, token_rule: str):
        self._mesh, self._config, self._editor, self._learning = mesh, editor.config, editor, learning
        self._state = self._placed(jax.eval_shape(lambda: trajectory.init(editor, 0, learning)), P())
        self._kept: list[int] = []  # bytes that each network's edit step keeps until its loss
        with jax.set_mesh(mesh):
            parts = sharding.size(sharding.DATA)
            self._edits = batches.edit_passes(sizes, parts, token_rule)
            self._scored = batches.score_passes(sizes, parts)
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
        return _bytes_held(self._params)

    @property
    def deltas_bytes(self) -> int:
        """Of one set of edits, on each device."""
        return _bytes_held(self._deltas)

    @property
    def networks_bytes(self) -> int:
        """Of networks, moments and gradients, on each device."""
        return _bytes_held(self._state)

    def waiting_bytes(self, one: Compiled) -> int:
        """Of rows and derivatives that steps keep for their loss, on each device; known once all are compiled."""
        return sum(self._kept[min(step, len(self._kept) - 1)] for step in one.waiting) if self._kept else 0

    def _waiting(self, steps: Iterable[int]) -> tuple[int, ...]:
        """Those of the steps that wait for a loss: none where each has one of its own, or nothing is learnt."""
        return tuple(steps) if self._learning is not None and not self._learning.a_loss_a_step else ()

    def programs(self, wanted: Sequence[str] = (*KINDS, "pull-back")) -> Programs:
        """Name and account of each program of the kinds wanted, compiled when asked for.

        Raises: TooLarge for one that its compiler refuses.
        """
        whole, params = (self._config, self._editor.sites), self._params
        batch, times = self._placed(batches.largest(self._edits), P(sharding.DATA)), len(self._edits)
        count = flops.Prompts(map(batches.in_one_rectangle, self._edits))
        below = self._compile(capturing.prefix, whole, (params, batch), flops.prefix(*whole, count), times)
        yield "prefix", below
        passed = (params, self._deltas, below.out, batch)
        useful = flops.capture(*whole, count)
        captured = self._compile(capturing.capture, whole, passed, useful, times, beside=below.out)
        yield "capture", captured._replace(waiting=self._waiting(range(self._editor.iters - 1)))
        if "scoring" in wanted:
            yield "scoring", self._scoring(below.out)
        if "learning" in wanted and self._learning is not None:
            yield from self._lessons(self._learning, below.out, batch, count)
        if "solve" in wanted and self._editor.method.rule.ridge is not None:
            coefficients = tuple(self._struct((len(group.layers),), "float32", P()) for group in self._editor.sites)
            given = captured.out.keys, captured.out.grads, coefficients
            yield "solve", self._compile(_solves, (self._editor.sites,), given, 0.0, of_model=False)
        if "shift" in wanted:
            iters, teach = self._editor.iters, "pull-back" in wanted and self._learning is not None
            alike = iters if len(self._editor.specs) == 1 else 1  # one network, compiled as for the last step
            for i in range(0, iters, alike):
                last = i + alike - 1
                for name, one in self._shift(i, captured.out, count.rows, teach):
                    others = range(last) if "pull-back" not in name else (j for j in range(iters) if j != last)
                    yield name, one._replace(steps=alike, waiting=self._waiting(others))

    def _scoring(self, below: jax.ShapeDtypeStruct) -> Compiled:
        """Its pass has a shape of its own; the hidden states below the edits lie as they do for an edit."""
        whole, batch = (self._config, self._editor.sites), batches.largest(self._scored)
        count = flops.Prompts(map(batches.in_one_rectangle, self._scored))
        placed = self._placed(batch, P(sharding.DATA))
        with jax.set_mesh(self._mesh):
            shape = jax.eval_shape(functools.partial(capturing.prefix, *whole), self._params, placed)
        prefix = jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=below.sharding)
        given = self._params, self._deltas, prefix, placed
        return self._compile(score_batch, whole, given, flops.scoring(*whole, count), len(self._scored), beside=prefix)

    def _lessons(self, learning: Learning, below: Any, batch: Batch, count: flops.Prompts) -> Programs:
        """The gradients of the loss, of paraphrases and unrelated prompts as long as the edits', and Adam's step."""
        whole, times = (self._config, self._editor.sites), len(self._edits)
        needed, after = (below, self._total), (self._deltas, below, batch, 1.0, self._total)
        waiting = self._waiting(range(self._editor.iters)) or (0,)
        useful = flops.weight_gradient(*whole, count)
        found = self._compile(gradient.add_equiv, whole, (self._params, *after), useful, times, beside=needed)
        yield "meta gradient", found._replace(waiting=waiting)
        if learning.loc_coef:
            given, useful = (self._params, self._deltas, *after), flops.locality(*whole, count)
            found = self._compile(gradient.add_locality, whole, given, useful, times, beside=needed)
            yield "locality", found._replace(waiting=waiting)
        given = self._state.thetas, self._state.opt_state, self._state.grads
        yield "optimiser", self._compile(gradient.adam_step, (learning.optimiser,), given, 0.0, of_model=False)

    def _shift(self, i: int, captured: Trace, used: int, teach: bool) -> Programs:
        """Network and solve of a step, and the way back to its network; of so many rows that are no padding."""
        editor = self._editor
        rows = sum(batch.capture_at_n.shape[0] for batch in self._edits)
        if rows > max(editor.rows_at_once, *(group.k for group in editor.sites)):
            yield from self._streamed(i, captured, rows, used, teach)
            return
        trace = self._of_rows(captured, rows)
        kind = editor.sites, editor.method.rule, editor.structure(i)
        given = self._deltas, self._state.thetas[i], self._state.stats[i], trace
        useful, fixed = flops.shift(*kind, used), {"of_model": False, "beside": trace}
        yield f"shift, step {i + 1}", self._compile(learn_shift, kind, given, useful, **fixed, factors=True)
        if teach:
            taught = self._compile(learn_shift, kind, given, useful, **fixed, teach=True)
            self._kept.append(_bytes_held((trace, taught.out.pull)))
            yield f"taught shift, step {i + 1}", taught
            back, useful = (taught.out.pull, self._total), flops.pull_back(*kind, used)
            done = self._compile(gradient.pull, (), back, useful, of_model=False, beside=(trace, back))
            yield f"pull-back, step {i + 1}", done

    def _streamed(self, i: int, captured: Trace, rows: int, used: int, teach: bool) -> Programs:
        """`_shift` of more rows than the devices hold together, chunk by chunk: the sums, and the solve from them."""
        editor, alone = self._editor, self._mesh.size == 1
        sites, rule = editor.sites, editor.method.rule
        kind = sites, rule, editor.structure(i)
        chunk = min(editor.rows_at_once, stream.CHUNK)
        trace, times = (self._of_rows(captured, chunk), -(-rows // chunk)) if alone else (captured, len(self._edits))
        theta, stats = self._state.thetas[i], self._state.stats[i]
        sums = self._compile(stream.no_sums, (sites, rule.ridge is not None), (), 0.0, of_model=False).out
        solved = flops.solve_of_sums(sites, rule)
        useful = flops.shift(*kind, used) - solved
        added = self._compile(
            stream.add_rows, kind, (theta, stats, trace, sums), useful, times, of_model=False, beside=(trace, sums)
        )
        yield f"shift, step {i + 1}: rows", added
        done = self._compile(stream.solve_sums, kind, (theta, sums), solved, of_model=False, beside=sums)
        yield f"shift, step {i + 1}: solve", done
        if teach:
            self._kept.append(_bytes_held((sums, self._deltas)))
            given = theta, sums.gram, self._deltas, self._deltas
            begun = self._compile(
                stream.begin_pull_back, kind, given, solved, of_model=False, beside=(sums, self._deltas, self._deltas)
            )
            yield f"pull-back, step {i + 1}: solve", begun
            u, theta_grad = begun.out
            useful = max(flops.pull_back(*kind, used) - solved, 0.0)
            yield (
                f"pull-back, step {i + 1}: rows",
                self._compile(
                    stream.pull_back_rows,
                    kind,
                    (theta, stats, trace, u, theta_grad),
                    useful,
                    times,
                    of_model=False,
                    beside=(trace, sums, u, theta_grad),
                ),
            )

    def _of_rows(self, trace: Trace, rows: int) -> Trace:
        """A trace of so many rows that lie as this one's do."""

        def long(leaf: Any, axis: int) -> Any:
            shape = (*leaf.shape[:axis], rows, *leaf.shape[axis + 1 :])
            return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=leaf.sharding)

        rows_of_sites = jax.tree.map(lambda leaf: long(leaf, 1), (trace.keys, trace.grads))
        given = rows_of_sites, long(trace.captured_n, 0), trace.loss, trace.ce_a
        return jax.tree.unflatten(jax.tree.structure(trace), jax.tree.leaves(given))

    def _compile(
        self,
        function: Any,
        static: tuple,
        given: tuple,
        useful: float,
        passes: int = 1,
        *,
        of_model: bool = True,
        beside: Any = (),
        **fixed: Any,
    ) -> Compiled:
        """`beside`: those of the things given that are no weights, edits or networks."""
        with jax.set_mesh(self._mesh):
            try:
                compiled = function.lower(*static, *given, **fixed).compile()
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise TooLarge(f"{function.__name__}: {str(error).splitlines()[0]}") from error
            again = loops.uncounted(functools.partial(function, *static, **fixed), *given) / self._mesh.size
        memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
        costs = costs[0] if isinstance(costs, list) else costs
        out = jax.tree.map(
            lambda shape, lies: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=lies),
            compiled.out_info,
            compiled.output_shardings,
        )
        made = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
        return Compiled(
            memory.output_size_in_bytes,
            memory.temp_size_in_bytes,
            made + _bytes_held(beside),
            None if not costs or "flops" not in costs else costs["flops"] + again,
            collectives.sent(compiled.as_text()),
            useful,
            passes,
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


@functools.partial(jax.jit, static_argnums=0)
@jax.default_matmul_precision("highest")
def _solves(sites: Sites, x: tuple, y: tuple, lambdas: tuple) -> tuple:
    """The ridge solves of all groups, their results where they were solved."""
    return tuple(map(apart.in_pieces, sites, x, y, lambdas))


def _bytes_held(tree: Any) -> int:
    """On each device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
