"""Ours against the straightforward PyTorch way (`benchmarks/torch_way.py`): same model, rows and networks, in turns.

    python -m benchmarks.torch_baseline --config=configs/zsre_smollm2.py --config.editor.rank=1024 \
        --config.dataset.train_path=zsre_train.json --config.dataset.valid_path=zsre_eval.json

Needs the extra `parity`. Any config and flags of `launch.py` whose editor is emsedit with several batches. Phase by
phase: what each side found has to agree to 1e-3 of its size, else the benchmark stops; then both are timed in turns.
Ours starts from rows of tokens, packing included; PyTorch's micro-batches are cut and on the device beforehand. The
memory of each side is the peak of a process of its own that makes one training batch and scores it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import command, timing
from benchmarks.trees import by_path
from emsedit_jax.data.batching import KINDS
from emsedit_jax.edit import capture as capturing
from emsedit_jax.edit.step import learn_shift, no_edit
from emsedit_jax.errors import InputError
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.score import score_edits
from emsedit_jax.measure.scores import NAMES
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.gradient import Lesson
from emsedit_jax.run import cli, edits, resources
from emsedit_jax.run.prepare import Prepared, prepare
from emsedit_jax.types import MetaState

AGREE = 1e-3  # relative difference that is let pass
REPEATS = 9
PAUSE_S = 0.02
SIDES = ("ours", "torch")


def started(run: Prepared) -> MetaState:
    """Networks that do something at every parameter: B would start at 0, and A's gradient with it.

    Biases keep the units off the kink at 0, half on each side: there the slightest rounding turns a derivative over.
    """
    state = trajectory.init(run.editor, run.config.seed, run.learning)
    rng = np.random.default_rng(0)

    def stirred(path: tuple, leaf: jax.Array) -> jax.Array:
        by = {"B": lambda: 1e-4 * rng.normal(size=leaf.shape), "bias": lambda: 3 * rng.choice((-1, 1), leaf.shape)}
        key = getattr(path[-1], "key", None)
        return leaf + by[key]().astype(np.float32) if key in by else leaf

    thetas = jax.tree_util.tree_map_with_path(stirred, state.thetas)
    return MetaState(thetas, state.stats, state.opt_state, state.grads)


class Ours:
    """The first batch on our side."""

    def __init__(self, run: Prepared, state: MetaState):
        assert run.train_plan is not None
        assert run.learning is not None
        self.run, self.state, self.editor, self.learning = run, state, run.editor, run.learning
        self.plan = run.train_plan
        self.none = no_edit(run.editor.sites)
        self.whole = run.lm.config, run.editor.sites, run.lm.params
        self.score_plan = run.score_plan

    def prompts(self, kind: str) -> capturing.Prompts:
        """Packed, with the hidden states below the edits."""
        return capturing.prompts(*self.whole, self.plan.batches(0, kind))

    def capture(self):
        """At first sight: layers below included."""
        ((below, batch),) = self.prompts("edit").passes()
        return capturing.capture(*self.whole, self.none, below, batch)

    def shift(self, trace, i: int = 0):
        rule, slot = self.editor.method.rule, self.editor.slot(i)
        given = self.none, self.state.thetas[slot], self.state.stats[slot], trace
        return learn_shift(self.editor.sites, rule, self.editor.structure(i), *given)

    def step(self, stored: capturing.Prompts):
        """Capture and shift of a batch's second step, and of every later one: its prefixes are there."""
        return trajectory.step(self.editor, self.whole[2], self.none, self.state, stored, 0)

    def edit(self):
        return trajectory.edit_batch(self.editor, self.whole[2], self.none, self.state, self.prompts("edit"))

    def taught(self):
        """As training edits: each step keeps what the way back to its network needs."""
        deltas, state, prompts, auxes = self.none, self.state, self.prompts("edit"), []
        for i in range(self.editor.iters):
            deltas, state, aux = trajectory.step(self.editor, self.whole[2], deltas, state, prompts, i, teach=True)
            auxes.append(aux)
        return deltas, auxes

    def weight_gradient(self, deltas):
        lesson = [Lesson(self.prompts("equiv"), None, 1.0)]
        drift = self.learning.drift_coef
        return gradient.weight_gradient(*self.whole, self.none, deltas, lesson, drift_coef=drift)[1]

    def pull_back(self, auxes, weights):
        rule, editor = self.editor.method.rule, self.editor
        return [
            gradient.pull_back(editor.sites, rule, editor.structure(i), self.state.thetas[editor.slot(i)], aux, weights)
            for i, aux in enumerate(auxes)
        ]

    def train(self):
        """The whole batch; the gradients of the state are donated, so it is given new ones."""
        fresh = jax.tree.map(jax.numpy.zeros_like, self.state.grads)
        state = MetaState(self.state.thetas, self.state.stats, self.state.opt_state, fresh)
        lesson = [Lesson(self.prompts("equiv"), None, 1.0)]
        edit = self.prompts("edit")
        return trajectory.train_batch(self.editor, self.learning, self.whole[2], self.none, state, edit, lesson)

    def score(self, store: PrefixStore | None = None):
        """All kinds' prompts of the first batch to be edited; without a store nothing is kept."""
        store = store or PrefixStore(*self.whole, 0)
        model = self.run.under(self.none)._replace(prefixes=store)
        (found,) = score_edits(model, self.score_plan, [0])
        return found


class Theirs:
    """The same batch on PyTorch's side."""

    def __init__(self, run: Prepared, state: MetaState):
        import torch

        from benchmarks.torch_way import Way

        device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
        self.way = Way(run.lm.folder, run.editor.sites, state.thetas, device, run.lm.config.dtype)
        assert run.train_plan is not None
        assert run.learning is not None
        size, plan = run.config.dataset.batch_size, run.valid_plan
        self.learning = run.learning
        self.micro = {kind: self.way.micro_batches(run.train_plan.items[kind][0], size) for kind in ("edit", "equiv")}
        self.asked = {kind: self.way.micro_batches(plan.items[kind][0], size) for kind in KINDS if plan.items[kind][0]}
        self.order = {kind: plan.order(0, kind) for kind in self.asked}
        self.synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None

    def done(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """The call, over when the device is."""

        def whole() -> Any:
            found = call()
            self.synchronise()
            return found

        return whole

    def edit(self):
        """Into the original weights, by networks that have seen nothing."""
        self.way.forget()
        return self.way.edit(self.micro["edit"])

    def weight_gradient(self):
        return self.way.weight_gradient(self.micro["equiv"], self.learning.drift_coef)

    def train(self):
        shifted, weights = self.edit(), self.weight_gradient()
        return shifted, weights, self.pull_back(shifted, weights)

    def pull_back(self, shifted, weights):
        from benchmarks.torch_way import clip

        total = []
        for i, one in enumerate(shifted):
            total += self.way.pull_back(i, one, weights)
            clip(total, self.learning.max_grad_norm)
        return total

    def score(self):
        return {NAMES[kind]: self.way.score(batches) for kind, batches in self.asked.items()}


def differences(run: Prepared, ours: Ours, theirs: Theirs) -> dict[str, float]:
    """How far the two sides' results are apart, relative to their size. Raises InputError where it is above `AGREE`."""
    trace = ours.capture()
    theirs.way.restore()
    captured = theirs.way.capture(theirs.micro["edit"])
    rows = int(np.sum(np.asarray(trace.captured_n)))
    deltas, state, aux = ours.train()
    shifted, weights, networks = theirs.train()
    written = {name: sum(one.shifts[name] for one in shifted) for name in theirs.way.modules}
    flat = [by_path(theta) for network in state.grads for theta in network]
    sites = run.editor.sites
    keys, grads = (tuple(stack[:, :rows] for stack in stacks) for stacks in (trace.keys, trace.grads))
    pairs = {
        "keys": (edits.named(sites, keys), captured.keys),
        "value gradients": (edits.named(sites, grads), captured.grads),
        "edits": (edits.named(sites, deltas), written),
        "gradient of the weights": (edits.named(sites, gradient.stacked(aux.weight_grads[-1])), weights),
        "gradient of the networks": (_numbered(flat), _numbered(networks)),
    }
    theirs.way.restore()
    mine, other = ours.score(), theirs.score()
    found = {name: _apart(*pair) for name, pair in pairs.items()}
    for kind, order in theirs.order.items():
        name = NAMES[kind]
        found[f"{name} (mean share)"] = abs(float(np.mean(mine[name][order])) - float(np.mean(other[name])))
    if not all(value <= AGREE for value in found.values()):
        raise InputError(f"the two sides differ by more than {AGREE}: {found}")
    return {name: float(f"{value:.1e}") for name, value in found.items()}


def _numbered(thetas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {f"{number}.{path}": one for number, theta in enumerate(thetas) for path, one in theta.items()}


def _apart(mine: dict[str, np.ndarray], other: dict[str, Any]) -> float:
    """The largest |mine - other| / |other| of all arrays, by name."""
    assert mine.keys() == other.keys()
    theirs = {name: one.detach().cpu().numpy() for name, one in other.items()}
    return max(float(np.linalg.norm(mine[name] - one) / np.linalg.norm(one)) for name, one in theirs.items())


def phases(run: Prepared, ours: Ours, theirs: Theirs) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name -> (our call, PyTorch's). What starts in the middle of a batch starts from what its own side found."""
    way, micro = theirs.way, theirs.micro
    trace = ours.capture()
    deltas, auxes = ours.taught()
    weights = ours.weight_gradient(deltas)
    captured, shifted, their_weights = way.capture(micro["edit"]), theirs.edit(), theirs.weight_gradient()
    store, stored = PrefixStore(*ours.whole, run.config.eval.prefix_store_mb), ours.prompts("edit")
    found = {
        "capture": (ours.capture, lambda: way.capture(micro["edit"])),
        "shift": (lambda: ours.shift(trace), lambda: way.shift(0, captured)),
        "edit step, prefixes stored": (
            lambda: ours.step(stored)[0],
            lambda: way.shift(0, way.capture(micro["edit"])),
        ),
        "edit, all steps": (ours.edit, theirs.edit),
        "gradient of the meta-loss": (lambda: ours.weight_gradient(deltas), theirs.weight_gradient),
        "update of the networks": (
            lambda: ours.pull_back(auxes, weights),
            lambda: theirs.pull_back(shifted, their_weights),
        ),
        "training batch": (ours.train, theirs.train),
        "scoring, first sight": (ours.score, theirs.score),
        "scoring, prefixes stored": (lambda: ours.score(store), theirs.score),
    }
    return {name: (mine, theirs.done(other)) for name, (mine, other) in found.items()}


def compared(run: Prepared) -> dict[str, Any]:
    """Differences, and each phase's seconds on both sides with their ratio."""
    state = started(run)
    ours, theirs = Ours(run, state), Theirs(run, state)
    apart = differences(run, ours, theirs)
    pairs = phases(run, ours, theirs)
    calls = {f"{name}, {side}": call for name, both in pairs.items() for side, call in zip(SIDES, both, strict=True)}
    seconds = timing.in_turns(calls, REPEATS, pause_s=PAUSE_S)
    table = {}
    for name in pairs:
        mine, other = (f"{name}, {side}" for side in SIDES)
        table[name] = {
            "ours_s": round(statistics.median(seconds[mine]), 4),
            "torch_s": round(statistics.median(seconds[other]), 4),
            "torch_over_ours": timing.ratio(seconds, other, mine),
        }
    return {"differences": apart, "phases": table}


def alone(run: Prepared, side: str) -> dict[str, int]:
    """Peak memory of this process after a training batch and its scoring on one side, in MB."""
    state = started(run)
    one = (Ours if side == "ours" else Theirs)(run, state)
    jax.block_until_ready(one.train())
    one.score()
    found = {"peak_rss_mb": round(resources.peak_rss_mb())}
    device = resources.peak_device_mb()
    if side == "torch" and isinstance(one, Theirs) and one.way.device == "cuda":
        import torch

        device = torch.cuda.max_memory_allocated() / 2**20
    return found | ({"peak_device_mb": round(device)} if device is not None else {})


def memory(argv: Sequence[str]) -> dict[str, Any]:
    """Each side's peak memory, in a process of its own."""
    found = {}
    for side in SIDES:
        command = [sys.executable, "-m", "benchmarks.torch_baseline", *argv[1:], f"--alone={side}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            raise InputError(f"the process of side {side!r} failed: {done.stderr.strip().splitlines()[-1:]}")
        found[side] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(argv: Sequence[str]) -> None:
    own = command.parser(__doc__)
    own.add_argument("--alone", choices=SIDES, help="prints the peak memory of this side alone")
    values, given = command.read(argv, own)
    if given.config.editor.name != "emsedit" or given.config.num_seq == 1:
        raise InputError("this benchmark compares sequential EMSEdit: editor=emsedit, --config.num_seq=2 or more.")
    if importlib.util.find_spec("torch") is None:
        raise InputError("this benchmark needs PyTorch; install the extra: pip install -e '.[parity]'")
    with contextlib.redirect_stdout(sys.stderr):
        run = prepare(given.config)
    if values.alone:
        print(json.dumps(alone(run, values.alone)))
        return
    timing.report("torch_baseline", repeats=REPEATS, **compared(run), memory=memory(argv))


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
