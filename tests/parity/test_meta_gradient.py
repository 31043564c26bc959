"""From the meta-loss to the stepped networks, each stage from what was recorded before it."""

import jax
import numpy as np

from emsedit_jax.edit import stream
from emsedit_jax.edit.step import StepAux
from emsedit_jax.meta import gradient, trajectory
from emsedit_jax.meta.methods import method
from emsedit_jax.types import MetaState
from tests.parity import followed, ours
from tests.parity.compare import SCALAR, STAGE, assert_close, assert_theta_close
from tests.parity.golden import Case, Update


def own_losses(case: Case, update: Update, values: tuple, kind: str) -> np.ndarray:
    """The package's losses of each micro-batch of every lesson, newest batch first."""
    plan = ours.plans(case)["train"]
    return np.concatenate(
        [ours.micro_batch_sums(plan, update.step - age, kind, values_a) for age, values_a in enumerate(values)]
    )


def test_module_gradient(trained_case):
    """The losses of a training batch and the weights' gradient, at the recorded shifts."""
    case = trained_case
    followed.require(case, "module gradient")
    model, sites, learning = ours.lm(case.model_folder), ours.sites(case), ours.learning(case)
    pairs, divergences = [], []
    for update in case.history.updates:
        lessons = ours.lessons(case, update.step)
        last = update.passes[-1].key
        assert update.edits[-1] == last  # the newest shift is in the weights that the loss is taken at
        before = ours.deltas(case, update.edits[:-1])
        loss, found = gradient.weight_gradient(
            model.config,
            sites,
            model.params,
            before,
            ours.deltas(case, update.edits),
            lessons,
            loc_coef=learning.loc_coef,
            drift_coef=learning.drift_coef,
            origin=before if method(case.config["editor"]["name"]).drift == "step" else None,
        )
        pairs += ours.site_pairs(case, f"{update.key}/module_grad", found)
        for parts, kind, name, into in (
            (loss.equiv_ce, "equiv", "gen_losses", pairs),
            (loss.locality_kl, "unrel", "loc_losses", divergences),
        ):
            if parts:
                own, recorded = own_losses(case, update, parts, kind), case.arrays[f"{update.key}/{name}"]
                into.append((f"{update.key}/{name}", own, recorded[-len(own) :]))  # recorded with earlier steps' losses
    assert_close(pairs, STAGE)
    for what, own, recorded in divergences:  # with shifts of the published size they are rounding errors, about 1e-9
        np.testing.assert_allclose(own, recorded, rtol=1e-3, atol=1e-6, err_msg=what)


def clippings(case: Case):
    """(update, pass, key, sum before the pass's gradient, sum before clipping, sum after it) of every clipping.

    Recorded are the sums after clipping; division by the factor, known from the recorded norm, undoes it.
    """
    for update in case.history.updates:
        former = update.former and f"{update.former}/grad"
        for c, one in enumerate(update.passes):
            key = update.clip_key(c)
            before = ours.host(ours.thetas(case, former))
            clipped = ours.host(ours.thetas(case, f"{key}/grad"))
            norm = float(case.arrays[f"{key}/total_norm"])
            factor = np.float32(min(1.0, float(case.config["editor"]["max_grad_norm"]) / (norm + 1e-6)))
            yield update, one, key, before, jax.tree.map(lambda x, factor=factor: x / factor, clipped), clipped
            former = f"{key}/grad"


def test_hypernet_gradient(trained_case):
    """The vjp of the shift in both its forms: at once, and summed up over chunks of rows from the recorded shift.

    lamda's gradient is a sum that cancels to a thousandth of its terms; the recorded one holds the rounding errors of
    the recorded shift. It is compared where that shift goes in, and the two forms are compared elsewhere.
    """
    case = trained_case
    followed.require(case, "hypernet gradient")
    sites, rule = ours.sites(case), method(case.config["editor"]["name"]).rule
    at_once, summed = [], []
    for update, one, key, before, unclipped, _ in clippings(case):
        slot, spec, theta = case.slot(one.net), ours.spec(case, one.net), ours.theta_of(case, one)
        trace, stats = ours.trace(case, one.key), ours.stats(case, f"{one.key}/norm")
        shift, cotangent = ours.by_site(case, f"{one.key}/shift"), ours.by_site(case, f"{update.key}/module_grad")
        _, _, sums = stream.shift_from(sites, rule, spec, theta, stats, (trace,))
        for pairs, given in ((at_once, None), (summed, sums)):
            aux = StepAux((trace,), trace.loss, stats, (), (), shift, given)
            found = gradient.pull_back(sites, rule, spec, theta, aux, gradient.by_site(cotangent))
            own = jax.tree.map(np.add, before[slot], ours.host(found))
            pairs += ours.theta_pairs(f"{key}/{slot}", (own,), (unclipped[slot],))
    assert_theta_close([pair for pair in at_once if not pair[0].endswith("/lamda")], STAGE, SCALAR)
    assert_theta_close(summed, STAGE, SCALAR)


def test_clipping(trained_case):
    case = trained_case
    followed.require(case, "clipping")
    norms, sums = [], []
    for _, one, key, before, unclipped, clipped in clippings(case):
        slot = case.slot(one.net)
        added = jax.tree.map(np.subtract, unclipped[slot], before[slot])
        total, norm = gradient.accumulate(
            jax.device_put(before), slot, jax.device_put(added), float(case.config["editor"]["max_grad_norm"])
        )
        norms += [(f"{key}/total_norm", norm, case.arrays[f"{key}/total_norm"])]
        sums += ours.theta_pairs(f"{key}/grad", total, clipped)
    assert_close(norms, STAGE)
    assert_close(sums, STAGE)


def test_optimiser(trained_case):
    case = trained_case
    followed.require(case, "optimiser")
    learning = ours.learning(case)
    thetas = ours.thetas(case, "init/hyper")
    opt_state = gradient.optimiser(learning.optimiser).init(thetas)
    zeros = ours.host(ours.thetas(case, None))
    pairs = []
    for k, key in enumerate(case.history.steps, 1):
        grads = ours.thetas(case, f"{key}/grad")
        state, _ = trajectory.finish(learning, MetaState(thetas, (), opt_state, grads))
        thetas, opt_state = state.thetas, state.opt_state
        jax.tree.map(np.testing.assert_array_equal, ours.host(state.grads), zeros)
        pairs += ours.theta_pairs(f"opt/{k}", ours.host(thetas), ours.thetas(case, ours.networks_after(k)))
    assert_theta_close(pairs, STAGE, SCALAR)
