"""How near to the machine's limit the phases of an edit run: useful FLOP over what the machine could do in that time.

    python -m benchmarks.roofline --config=configs/zsre_smollm2.py \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

Any config and flags of `launch.py`. The first batches are edited, so that the weights are no longer the original ones;
then the phases of the next one are timed in turns: its prefixes (the layers below the edits), one capture, one shift,
the gradient of the meta-loss, the pull-back to the networks, and scoring (with and without stored prefixes). The peak
is the best product of two float32 matrices of 2048 x 2048 in the same process. `benchmarks/flops.py` counts.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks import flops, timing
from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.edit import capture as capturing
from emsedit_jax.edit.capture import Prompts
from emsedit_jax.edit.step import StepAux, learn_shift, no_edit
from emsedit_jax.errors import InputError
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.score import score_edits
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.run import cli
from emsedit_jax.run.prepare import Prepared, prepare
from emsedit_jax.types import Deltas, MetaState

REPEATS = 9
WRITTEN = 2  # batches that are edited first


class Phase(NamedTuple):
    """Something to be timed, and the operations that it needs."""

    call: Callable[[], Any]
    flop: float


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


def _prompts(run: Prepared, plan: EditPlan, j: int) -> dict[str, Prompts]:
    """A batch's prompts by kind, their prefixes computed; without kinds that it has none of."""
    packed = {kind: plan.batches(j, kind) for kind in KINDS}
    whole = run.lm.config, run.editor.sites, run.lm.params
    return {kind: capturing.prompts(*whole, batches) for kind, batches in packed.items() if batches}


def phases(now: Scene) -> dict[str, Phase]:
    """Everything that editing, learning and scoring consist of."""
    run, deltas, state = now.run, now.deltas, now.state
    config, params, editor = run.lm.config, run.lm.params, run.editor
    sites, rule, last = editor.sites, editor.method.rule, editor.iters - 1
    spec, slot = editor.structure(last), editor.slot(last)
    counts = {kind: flops.Prompts(prompts.batches) for kind, prompts in now.kinds.items()}
    edit, rows = now.kinds["edit"], counts["edit"].rows
    found = {
        "prefix": Phase(
            lambda: [capturing.prefix(config, sites, params, batch) for batch in edit.batches],
            flops.prefix(config, sites, counts["edit"]),
        ),
        "capture": Phase(
            lambda: [capturing.capture(config, sites, params, deltas, *one) for one in edit.passes()],
            flops.capture(config, sites, counts["edit"]),
        ),
        "shift": Phase(
            lambda: learn_shift(sites, rule, spec, deltas, state.thetas[slot], state.stats[slot], now.step.traces[0]),
            flops.shift(sites, rule, spec, rows),
        ),
    }
    if run.learning is not None:
        learning, lesson = run.learning, Lesson(now.kinds["equiv"], now.kinds.get("unrel"), 1.0)
        local = learning.loc_coef if editor.method.locality else 0.0
        flop = flops.weight_gradient(config, sites, counts["equiv"])
        if local:
            flop += flops.locality(config, sites, counts["unrel"])
        found["meta gradient"] = Phase(
            lambda: gradient.weight_gradient(
                config, sites, params, deltas, deltas, [lesson], loc_coef=local, drift_coef=learning.drift_coef
            ),
            flop,
        )
        weights = no_edit(sites)
        found["pull-back"] = Phase(
            lambda: gradient.pull_back(sites, rule, spec, state.thetas[slot], now.step, weights),
            flops.pull_back(sites, rule, spec, rows),
        )
    return found | scoring_phases(now)


def scoring_phases(now: Scene) -> dict[str, Phase]:
    """Scoring one batch of the evaluation plan at first sight, and again with its prefixes stored."""
    run, plan = now.run, now.run.score_plan
    config, sites = run.lm.config, run.editor.sites
    model = run.under(now.deltas)
    count = flops.Prompts(unit.batch for unit in plan.units(0))
    first, again = flops.prefix(config, sites, count), flops.scoring(config, sites, count)
    blank = model._replace(prefixes=PrefixStore(config, sites, run.lm.params, 0))
    return {
        "scoring, first": Phase(lambda: score_edits(blank, plan, 0), first + again),
        "scoring, stored": Phase(lambda: score_edits(model, plan, 0), again),
    }


def main(argv: Sequence[str]) -> None:
    cli.quiet()
    command = cli.read(argv)
    now = scene(prepare(command.config))
    found = phases(now)
    multiply, flop = timing.product()
    seconds = timing.in_turns({name: phase.call for name, phase in found.items()} | {"product": multiply}, REPEATS)
    peak = flop / min(seconds["product"])
    table = {
        name: {
            "seconds": round(statistics.median(seconds[name]), 4),
            "useful_gflop": round(phase.flop / 1e9, 2),
            "share_of_peak": round(phase.flop / (statistics.median(seconds[name]) * peak), 3),
        }
        for name, phase in found.items()
    }
    timing.report("roofline", peak_gflops=round(peak / 1e9, 1), repeats=REPEATS, phases=table)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
