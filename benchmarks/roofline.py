"""How near to the machine's limit the phases of an edit run: useful FLOP over what the machine could do in that time.

    python -m benchmarks.roofline --config=configs/zsre_smollm2.py \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

Any config and flags of `launch.py`. The first batches are edited, so that the weights are no longer the original ones;
then the phases of the next one are timed in turns: its prefixes (the layers below the edits), one capture, one shift,
the gradient of the meta-loss, the pull-back to a network, and scoring (with and without stored prefixes).

`useful_gflop` is what the method needs on tokens that are no padding (`benchmarks/flops.py`), `xla_gflop` what XLA
counts in the programs. The peak is the best product of two square matrices in the same process, in the model's dtype
for passes through the model and in float32 for networks and solves: of 2048 x 2048 on a CPU, 8192 x 8192 elsewhere.
`mfu` is the share of the published peak, where `benchmarks/peaks.py` has the device.

`--made_up` draws the weights at random: `--config.model.name_or_path` is then a folder with `config.json` and a
tokenizer, and a model of any size that the device holds can be timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import command, flops, loops, made_up, peaks, timing
from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.edit import capture as capturing
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.step import StepAux, learn_shift, no_edit
from emsedit_jax.errors import InputError
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.score import score_batch, score_edits
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.run import cli, resources
from emsedit_jax.run.prepare import Prepared, prepare
from emsedit_jax.types import Deltas, MetaState

REPEATS = 9
WRITTEN = 2  # batches that are edited first


class Phase(NamedTuple):
    """Something to be timed, the operations that it needs, and its programs with what they are given."""

    call: Callable[[], Any]
    flop: float
    programs: Sequence[tuple[Callable[..., Any], Sequence[Any]]]
    of_model: bool = True  # a pass through the model, in its dtype; else networks and solves, in float32


class Scene(NamedTuple):
    """A run in the middle of its edits, at the next batch."""

    run: Prepared
    deltas: Deltas
    state: MetaState
    step: StepAux  # of the next batch, at the last of its edit steps
    kinds: dict[str, Prompts]  # of the next batch, their prefixes computed


def scene(run: Prepared) -> Scene:
    """Edits the first batches, and one step of the next one."""
    lm, editor, plan = run.lm, run.editor, run.train_plan or run.valid_plan
    if len(plan) <= WRITTEN:
        raise InputError(f"this benchmark takes {WRITTEN + 1} batches or more; set --config.num_seq={WRITTEN + 1}.")
    deltas, state = no_edit(editor.sites), trajectory.init(editor, run.config.seed, run.learning)
    for j in range(WRITTEN):
        deltas, state, _ = trajectory.edit_batch(editor, lm.params, deltas, state, _prompts(run, plan, j)["edit"])
    kinds = _prompts(run, plan, WRITTEN)
    _, _, steps = trajectory.edit_batch(editor, lm.params, deltas, state, kinds["edit"])
    return Scene(run, deltas, state, steps[-1], kinds)


def _prompts(run: Prepared, plan: EditPlan, j: int, kinds: Sequence[str] = KINDS) -> dict[str, Prompts]:
    """A batch's prompts by kind, their prefixes computed; without kinds that it has none of."""
    packed = {kind: plan.batches(j, kind) for kind in kinds}
    whole = run.lm.config, run.editor.sites, run.lm.params
    return {kind: capturing.prompts(*whole, batches) for kind, batches in packed.items() if batches}


def phases(now: Scene) -> dict[str, Phase]:
    """Everything that editing, learning and scoring consist of."""
    return model_phases(now) | network_phases(now) | scoring_phases(now) | whole_phases(now)


def model_phases(now: Scene) -> dict[str, Phase]:
    """The passes through the model of an edit step and of learning."""
    run, deltas, params = now.run, now.deltas, now.run.lm.params
    config, sites = whole = run.lm.config, run.editor.sites
    counts = {kind: flops.Prompts(prompts.batches) for kind, prompts in now.kinds.items()}
    below, capture = (functools.partial(one, *whole) for one in (capturing.prefix, capturing.capture))
    batches = [(params, batch) for batch in now.kinds["edit"].batches]
    passes = [(params, deltas, *one) for one in now.kinds["edit"].passes()]
    found = {
        "prefix": Phase(
            lambda: [below(*one) for one in batches],
            flops.prefix(*whole, counts["edit"]),
            [(below, one) for one in batches],
        ),
        "capture": Phase(
            lambda: [capture(*one) for one in passes],
            flops.capture(*whole, counts["edit"]),
            [(capture, one) for one in passes],
        ),
    }
    if run.learning is None:
        return found
    learning, equiv, unrel = run.learning, now.kinds["equiv"], now.kinds.get("unrel")
    add_equiv, add_locality = (functools.partial(one, *whole) for one in (gradient.add_equiv, gradient.add_locality))
    total = gradient.by_site(deltas)
    programs = [(add_equiv, (params, deltas, *one, 1.0, total)) for one in equiv.passes()]
    flop, local = flops.weight_gradient(*whole, counts["equiv"]), learning.loc_coef
    if local and unrel is not None:
        flop += flops.locality(*whole, counts["unrel"])
        programs += [(add_locality, (params, deltas, deltas, *one, local, total)) for one in unrel.passes()]
    lesson = [Lesson(equiv, unrel, 1.0)]
    found["meta gradient"] = Phase(
        lambda: gradient.weight_gradient(
            config, sites, params, deltas, deltas, lesson, loc_coef=local, drift_coef=learning.drift_coef
        ),
        flop,
        programs,
    )
    return found


def network_phases(now: Scene) -> dict[str, Phase]:
    """Networks and solves of the last edit step, and the way back to its network."""
    editor, state, rows = now.run.editor, now.state, flops.Prompts(now.kinds["edit"].batches).rows
    spec, slot = editor.structure(editor.iters - 1), editor.slot(editor.iters - 1)
    kind, theta = (editor.sites, editor.method.rule, spec), state.thetas[slot]
    shift, pull = functools.partial(learn_shift, *kind), functools.partial(gradient.pull_back, *kind)
    given = now.deltas, theta, state.stats[slot], now.step.traces[0]
    found = {"shift": Phase(lambda: shift(*given), flops.shift(*kind, rows), [(shift, given)], of_model=False)}
    if now.run.learning is not None:
        kept = learn_shift(*kind, *given, True).pull  # as training leaves it: the network does not run forward again
        wanted = theta, dataclasses.replace(now.step, pull=kept), gradient.by_site(no_edit(editor.sites))
        found["pull-back"] = Phase(
            lambda: pull(*wanted), flops.pull_back(*kind, rows), [(pull, wanted)], of_model=False
        )
    return found


def scoring_phases(now: Scene) -> dict[str, Phase]:
    """Scoring one batch of the evaluation plan at first sight, and again with its prefixes stored."""
    run, plan, params = now.run, now.run.score_plan, now.run.lm.params
    whole = run.lm.config, run.editor.sites
    model, batches = run.under(now.deltas), [unit.batch for unit in plan.units(0)]
    count = flops.Prompts(batches)
    first, again = flops.prefix(*whole, count), flops.scoring(*whole, count)
    blank = model._replace(prefixes=PrefixStore(*whole, params, 0))
    below, score = (functools.partial(one, *whole) for one in (capturing.prefix, score_batch))
    programs = [(score, (params, now.deltas, below(params, batch), batch)) for batch in batches]
    prefixes = [(below, (params, batch)) for batch in batches]
    return {
        "scoring, first sight": Phase(lambda: list(score_edits(blank, plan, [0])), first + again, prefixes + programs),
        "scoring, stored": Phase(lambda: list(score_edits(model, plan, [0])), again, programs),
    }


def whole_phases(now: Scene) -> dict[str, Phase]:
    """Editing a batch and learning from one, from its tokens on; each layer below the edits runs once."""
    run, editor, deltas = now.run, now.run.editor, now.deltas
    whole, plan = (run.lm.config, editor.sites), run.train_plan or run.valid_plan
    counts = {kind: flops.Prompts(prompts.batches) for kind, prompts in now.kinds.items()}
    specs = [(editor.sites, editor.method.rule, editor.structure(i)) for i in range(editor.iters)]
    edit_flop = flops.prefix(*whole, counts["edit"]) + editor.iters * flops.capture(*whole, counts["edit"])
    edit_flop += sum(flops.shift(*spec, counts["edit"].rows) for spec in specs)

    def edit():
        return trajectory.edit_batch(
            editor, run.lm.params, deltas, now.state, _prompts(run, plan, WRITTEN, ["edit"])["edit"]
        )

    found = {"edit, all steps": Phase(edit, edit_flop, [])}
    if run.learning is None or run.learning.update_every == "step":  # several losses a batch: other sums than these
        return found
    learning, taught = run.learning, ("equiv", "unrel") if run.learning.loc_coef else ("equiv",)
    flop = edit_flop + sum(flops.prefix(*whole, counts[kind]) for kind in taught)
    flop += flops.weight_gradient(*whole, counts["equiv"])
    flop += flops.locality(*whole, counts["unrel"]) if learning.loc_coef else 0.0
    flop += sum(flops.pull_back(*spec, counts["edit"].rows) for spec in specs)

    def train():
        kinds, state = _prompts(run, plan, WRITTEN, ["edit", *taught]), now.state
        fresh = jax.tree.map(jax.numpy.zeros_like, state.grads)  # those given are donated
        state = MetaState(state.thetas, state.stats, state.opt_state, fresh)
        lesson = [Lesson(kinds["equiv"], kinds.get("unrel"), 1.0)]
        return trajectory.train_batch(editor, learning, run.lm.params, deltas, state, kinds["edit"], lesson)

    return found | {"training batch": Phase(train, flop, [])}


def counted_by_xla(phase: Phase) -> float | None:
    """Operations of a phase's programs as XLA counts them before it optimises: padding and all, loops unrolled."""
    if not phase.programs:
        return None
    found = 0.0
    for program, given in phase.programs:
        costs = jax.jit(program).lower(*given).cost_analysis() or {}
        found += costs.get("flops", float("nan")) + loops.uncounted(program, *given)
    return found


def table(found: Mapping[str, Phase], dtype: str, size: int) -> dict[str, Any]:
    """Seconds, operations and shares of each phase, and the peaks that they are shares of."""
    products = {name: timing.product(size, name) for name in {dtype, "float32"}}
    calls = {name: phase.call for name, phase in found.items()}
    seconds = timing.in_turns(calls | {name: call for name, (call, _) in products.items()}, REPEATS)
    measured = {name: flop / min(seconds[name]) for name, (_, flop) in products.items()}
    published = peaks.peak(jax.devices()[0].device_kind)
    rows = {}
    for name, phase in found.items():
        took, kind = statistics.median(seconds[name]), dtype if phase.of_model else "float32"
        rows[name] = {
            "seconds": float(f"{took:.3g}"),
            "useful_gflop": round(phase.flop / 1e9, 2),
            "xla_gflop": None if (counted := counted_by_xla(phase)) is None else round(counted / 1e9, 2),
            "share_of_peak": round(phase.flop / (took * measured[kind]), 3),
        }
        best = getattr(published, kind, None)
        if best is not None:
            rows[name]["mfu"] = round(phase.flop / (took * best * 1e12), 3)
    return {"peak_gflops": {name: round(one / 1e9, 1) for name, one in measured.items()}, "phases": rows}


def main(argv: Sequence[str]) -> None:
    own = command.parser(__doc__)
    own.add_argument("--made_up", action="store_true", help="random weights, for timing: the folder needs none")
    values, given = command.read(argv, own)
    model = given.config.model
    lm = made_up.lm(Path(model.name_or_path), model.dtype) if values.made_up else None
    with contextlib.redirect_stdout(sys.stderr):
        run = prepare(given.config, lm=lm)
    size = 2048 if jax.default_backend() == "cpu" else 8192
    found = table(phases(scene(run)), run.lm.config.dtype, size)
    memory = {"peak_rss_mb": round(resources.peak_rss_mb()), "peak_device_mb": resources.peak_device_mb()}
    timing.report("roofline", repeats=REPEATS, batch=run.config.dataset.n_edits, **found, memory=memory)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
