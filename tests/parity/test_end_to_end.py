"""Whole runs with the package's own numbers, from the recorded initial networks to the scores."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from emsedit_jax import sharding
from emsedit_jax.data.scoring import plan_scoring
from emsedit_jax.edit.step import StepAux, no_edit
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.score import score_edits
from emsedit_jax.measure.scores import NAMES
from emsedit_jax.meta import methods, trajectory
from emsedit_jax.types import Deltas, MetaState
from tests.parity import followed, ours
from tests.parity.compare import END, END_GRADIENT, assert_close
from tests.parity.golden import Case
from tests.parity.test_validation import probe_logits, stats_pairs, weight_pairs


class Run(NamedTuple):
    """What a run gave, keyed as the recorded arrays are."""

    shifts: dict[str, Deltas]
    norms: dict[str, jax.Array]  # of the networks' gradients, before every clipping
    sums: dict[str, tuple]  # clipped sums of the networks' gradients, where they outlast the batch
    deltas: Deltas
    state: MetaState
    scores: dict[str, np.ndarray]


def editor_of(case: Case) -> trajectory.Editor:
    """The case's editor with the package's own networks' structure."""
    settings = case.config["editor"]
    method = methods.method(settings["name"])
    sizes = {name: settings.get(name, 0) for name in ("rank", "n_blocks")}
    iters, num_seq = settings["iters"], case.config["num_seq"]
    specs = methods.net_specs(method, iters=iters, lr=settings["lr"], num_seq=num_seq, **sizes)
    return trajectory.Editor(ours.lm(case.model_folder).config, ours.sites(case), method, specs, iters)


def initial_state(case: Case, editor: trajectory.Editor) -> MetaState:
    """The package's own initial state, but for what is drawn at random: the recorded networks."""
    state = trajectory.init(editor, seed=0, learning=ours.learning(case) if editor.method.learned else None)
    drawn = ours.thetas(case, "init/hyper") if editor.method.learned else state.thetas
    assert jax.tree.map(np.shape, drawn) == jax.tree.map(np.shape, state.thetas), "networks of other sizes"
    return MetaState(sharding.put(drawn), state.stats, state.opt_state, state.grads)


def train(case: Case, editor: trajectory.Editor, state: MetaState, found: Run) -> MetaState:
    """Meta-training; notes shifts, norms and clipped sums on the way."""
    learning = ours.learning(case)
    deltas = no_edit(editor.sites)
    for j in range(len(ours.plans(case)["train"])):
        edit, lessons = ours.prompts(case, "train", j, "edit"), ours.lessons(case, j)
        deltas, state, aux = trajectory.train_batch(
            editor, learning, ours.lm(case.model_folder).params, deltas, state, edit, lessons, shifts=True
        )
        note(found.shifts, "train", j, aux.steps)
        clippings = [u.clip_key(c) for u in case.history.updates if u.step == j for c in range(len(u.passes))]
        found.norms.update(zip(clippings, aux.norms, strict=True))
        if learning.update_every == "trajectory":
            found.sums[clippings[-1]] = ours.host(state.grads)
    return trajectory.finish(learning, state)[0] if learning.update_every == "trajectory" else state


def note(shifts: dict, phase: str, step: int, auxes: tuple[StepAux, ...]) -> None:
    """Keeps the shifts of one batch under the recorded keys."""
    shifts.update({f"{phase}/{step}/net{i}/shift": aux.shift for i, aux in enumerate(auxes)})


def scorer(case: Case):
    """`(deltas, batches) -> {"ES": ...}`: scores of the first so many batches, in the published order."""
    model, sites, plan = ours.lm(case.model_folder), ours.sites(case), ours.plans(case)["valid"]
    store = PrefixStore(model.config, sites, model.params, limit_mb=16.0)
    passes = plan_scoring(plan, max_tokens=512)

    def score(deltas: Deltas, batches: int) -> dict[str, np.ndarray]:
        edited = Edited(model.config, sites, model.params, deltas, store)
        found = list(score_edits(edited, passes, range(batches)))
        return {
            name: np.concatenate([one[name][plan.order(j, kind)] for j, one in enumerate(found)])
            for kind, name in NAMES.items()
        }

    return score


@ours.once
def run(case: Case) -> Run:
    """Trains, edits and scores as the case did."""
    model, editor = ours.lm(case.model_folder), editor_of(case)
    deltas, state = no_edit(editor.sites), initial_state(case, editor)
    found = Run({}, {}, {}, deltas, state, {})
    if editor.method.learned:
        state = train(case, editor, state, found)
    score, plan = scorer(case), ours.plans(case)["valid"]
    for j in range(len(plan)):
        prompts = ours.prompts(case, "valid", j, "edit")
        deltas, state, auxes = trajectory.edit_batch(editor, model.params, deltas, state, prompts, shifts=True)
        note(found.shifts, "valid", j, auxes)
        if case.has(f"eval/after{j}"):
            found.scores.update({f"eval/after{j}/{name}": one for name, one in score(deltas, j + 1).items()})
    if "eval/ES" in case.arrays:
        found.scores.update({f"eval/{name}": one for name, one in score(deltas, len(plan)).items()})
    return found._replace(deltas=deltas, state=state)


def test_scores_are_equal(case):
    followed.require(case, "end to end")
    recorded = case.under("eval")
    own = {key.removeprefix("eval/"): found for key, found in run(case).scores.items()}
    assert recorded.keys() == own.keys()
    for key, scores in recorded.items():  # shares of whole tokens: other counts would differ by far more
        np.testing.assert_allclose(own[key], scores, rtol=0, atol=1e-6, err_msg=key)


def test_shifts(case):
    followed.require(case, "end to end")
    own = run(case).shifts
    assert own.keys() == {f"{one.key}/shift" for one in case.history.passes}
    assert_close([pair for key, shift in own.items() for pair in ours.site_pairs(case, key, shift)], END)


def test_final_weights_statistics_and_logits(case):
    followed.require(case, "end to end")
    found = run(case)
    pairs = weight_pairs(case, found.deltas)
    pairs += [("probe/logits_after", probe_logits(case, found.deltas), case.arrays["probe/logits_after"])]
    for net, stats in enumerate(found.state.stats):
        pairs += stats_pairs(case, net, stats)
    assert_close(pairs, END)


def test_hypernet_gradients(trained_case):
    case = trained_case
    followed.require(case, "end to end")
    found = run(case)
    pairs = [(f"{key}/total_norm", own, case.arrays[f"{key}/total_norm"]) for key, own in found.norms.items()]
    for key, own in found.sums.items():
        pairs += ours.theta_pairs(key, own, ours.thetas(case, f"{key}/grad"))
    assert_close(pairs, END_GRADIENT)
