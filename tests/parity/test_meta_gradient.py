"""From the meta-loss to the stepped networks, each stage from what was recorded before it."""

import jax
import numpy as np

from emsedit_jax.edit import capture
from emsedit_jax.edit.step import StepAux
from emsedit_jax.meta import gradient
from emsedit_jax.meta.methods import method
from tests.parity import built, ours
from tests.parity.compare import SCALAR, STAGE, assert_close, assert_theta_close
from tests.parity.golden import Case, Update


def emsedit_loss(case: Case, update: Update):
    """(micro-batches' losses on equivalent prompts, the weights' gradient) of one EMSEdit batch."""
    model, sites = ours.lm(case.model_folder), ours.sites(case)
    editor = case.config["editor"]
    plan = ours.plans(case)["train"]
    equiv = plan[update.step].equiv
    prefix_btd = capture.prefix(model.config, sites, model.params, equiv)
    drift_coef = editor["reg_coef"] ** method(editor["name"]).drift_power
    deltas = ours.deltas(case, update.edits)
    loss, found = gradient.weight_gradient(model.config, sites, model.params, deltas, prefix_btd, equiv, drift_coef)
    weighted_a = np.asarray(loss.equiv_ce_a) * equiv.weights_a
    return ours.micro_batch_sums(plan, update.step, "equiv", weighted_a), found


LOSSES = {"emsedit": emsedit_loss}  # one row an editor that learns


def test_module_gradient(trained_case):
    case = trained_case
    built.require(case, "module gradient")
    pairs = []
    for update in case.history.updates:
        losses, found = LOSSES[case.config["editor"]["name"]](case, update)
        pairs += ours.site_pairs(case, f"{update.key}/module_grad", found)
        pairs += [(f"{update.key}/gen_losses", losses, case.arrays[f"{update.key}/gen_losses"])]
    assert_close(pairs, STAGE)


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
    case = trained_case
    built.require(case, "hypernet gradient")
    rule = method(case.config["editor"]["name"]).rule
    pairs = []
    for update, one, key, before, unclipped, _ in clippings(case):
        aux = StepAux(
            ours.trace(case, one.key),
            ours.stats(case, f"{one.key}/norm"),
            ours.by_site(case, f"{one.key}/shift"),
        )
        cotangent = ours.by_site(case, f"{update.key}/module_grad")
        found = gradient.pull_back(
            ours.sites(case), rule, ours.spec(case, one.net), ours.theta_of(case, one), aux, cotangent
        )
        slot = case.slot(one.net)
        own = jax.tree.map(np.add, before[slot], ours.host(found))
        pairs += ours.theta_pairs(f"{key}/{slot}", (own,), (unclipped[slot],))
    assert_theta_close(pairs, STAGE, SCALAR)


def test_clipping(trained_case):
    case = trained_case
    built.require(case, "clipping")
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
    built.require(case, "optimiser")
    meta_lr = case.config["editor"]["meta_lr"]
    thetas = ours.thetas(case, "init/hyper")
    opt_state = gradient.optimiser(meta_lr).init(thetas)
    pairs = []
    for k, key in enumerate(case.history.steps, 1):
        thetas, opt_state = gradient.adam_step(meta_lr, thetas, opt_state, ours.thetas(case, f"{key}/grad"))
        recorded = ours.thetas(case, ours.networks_after(k))
        pairs += ours.theta_pairs(f"opt/{k}", ours.host(thetas), recorded)
    assert_theta_close(pairs, STAGE, SCALAR)
