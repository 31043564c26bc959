"""Keys, value gradients and losses on the recorded weights, and the running statistics of the recorded rows."""

import jax
import numpy as np

from emsedit_jax.edit import normalizer, step
from tests.parity import followed, ours
from tests.parity.compare import STAGE, assert_close

seen = jax.jit(step.seen)
std = jax.jit(normalizer.std)


def test_keys_and_value_gradients(case):
    followed.require(case, "capture")
    pairs = []
    for one in case.history.passes:
        if case.has(f"{one.key}/keys"):
            trace = ours.captured(case)[one.key]
            used = np.asarray(trace.captured_n)
            for kind, trees in (("keys", trace.keys), ("values_grad", trace.grads)):
                pairs += ours.site_pairs(case, f"{one.key}/{kind}", [np.asarray(tree)[:, used] for tree in trees])
    assert_close(pairs, STAGE)


def test_edit_losses_of_micro_batches(case):
    followed.require(case, "capture")
    pairs = []
    for one in case.history.passes:
        plan = ours.plans(case)[one.phase]
        losses = ours.micro_batch_sums(plan, one.step, "edit", ours.captured(case)[one.key].ce_a)
        recorded = case.arrays[f"{one.key}/edit_loss"]
        pairs += [(f"{one.key}/edit_loss", losses, recorded)]
        pairs += [(f"{one.key}/loss", ours.captured(case)[one.key].loss, recorded.sum())]
    assert_close(pairs, STAGE)


def test_statistics(case):
    followed.require(case, "statistics")
    pairs = []
    for one in case.history.passes:
        before = ours.stats_before(case, one)
        if before is None or not (case.has(f"{one.key}/keys") and case.has(f"{one.key}/norm")):
            continue
        after = seen(before, ours.trace(case, one.key))
        for group, own in zip(ours.sites(case), after, strict=True):
            prefix = f"{one.key}/norm/{group.shape_key}"
            assert int(own.count) == int(case.arrays[f"{prefix}/n"][0]), prefix
            fields = {"mean": own.mean_c, "var": own.var_c, "std": std(own)}
            pairs += [(f"{prefix}/{name}", array, case.arrays[f"{prefix}/{name}"]) for name, array in fields.items()]
    assert_close(pairs, STAGE)
