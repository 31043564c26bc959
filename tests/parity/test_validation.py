"""Editing with recorded networks, batch after batch, up to the recorded weights and statistics."""

import functools

import jax
import numpy as np

from emsedit_jax.edit import normalizer, step
from emsedit_jax.lm import decoder
from emsedit_jax.meta.methods import method
from emsedit_jax.types import Deltas
from tests.parity import followed, ours
from tests.parity.compare import STAGE, assert_close
from tests.parity.golden import Case

std = jax.jit(normalizer.std)


def stats_pairs(case: Case, net: int, stats) -> list:
    """(key, ours, recorded) of the statistics after the whole run."""
    pairs = []
    for group, own in zip(ours.sites(case), stats, strict=True):
        prefix = f"final/norm/{net}/{group.shape_key}"
        assert int(own.count) == int(case.arrays[f"{prefix}/n"][0]), prefix
        fields = {"mean": own.mean_c, "var": own.var_c, "std": std(own)}
        pairs += [(f"{prefix}/{name}", array, case.arrays[f"{prefix}/{name}"]) for name, array in fields.items()]
    return pairs


def weight_pairs(case: Case, deltas: Deltas) -> list:
    """(key, ours, recorded) of the edited weights after the whole run."""
    weights = [w + np.asarray(d) for w, d in zip(ours.original_weights(case), deltas, strict=True)]
    return ours.site_pairs(case, "final/weight", weights)


@functools.partial(jax.jit, static_argnums=(0, 1))
def edited_logits(config, sites, params, deltas, tokens_bt, mask_bt):
    """Logits at every position with edits in place; 0 where masked."""
    positions_bt = jax.numpy.broadcast_to(jax.numpy.arange(tokens_bt.shape[1]), tokens_bt.shape)
    x_btd = decoder.prefix(config, params, decoder.lowest_layer(sites), tokens_bt, positions_bt, mask_bt)
    x_btd, _ = decoder.suffix(config, sites, params, deltas, x_btd, positions_bt, mask_bt)
    return jax.numpy.where(mask_bt[..., None] == 1, decoder.logits(config, params, x_btd), 0)


def probe_logits(case: Case, deltas: Deltas):
    """Logits of the recorded probes."""
    model = ours.lm(case.model_folder)
    probe = (case.arrays[f"probe/{field}"] for field in ("input_ids", "attention_mask"))
    return edited_logits(model.config, ours.sites(case), model.params, deltas, *probe)


def all_edits(case: Case) -> tuple[str, ...]:
    """The passes whose shifts make up the final weights."""
    return tuple(one.key for one in case.history.passes if one.phase == "valid")


def test_shifts_and_statistics(case):
    followed.require(case, "validation")
    sites, editor = ours.sites(case), case.config["editor"]
    rule = method(editor["name"]).rule
    stats: dict[int, tuple] = {}
    pairs = []
    for one in case.history.passes:
        if one.phase == "valid":
            slot = case.slot(one.net)
            before = ours.stats_before(case, one) or stats[slot]  # recorded as long as there is a record
            learnt = step.learn_shift(
                sites,
                rule,
                ours.spec(case, one.net),
                ours.deltas(case, one.edits),
                ours.theta_of(case, one),
                before,
                ours.captured(case)[one.key],
                shifts=True,
            )
            stats[slot], shift = learnt.stats, learnt.shift
            pairs += ours.site_pairs(case, f"{one.key}/shift", shift)
    for slot, found in stats.items():
        pairs += stats_pairs(case, slot, found)
    assert_close(pairs, STAGE)


def test_final_weights(case):
    followed.require(case, "final weights")
    assert_close(weight_pairs(case, ours.deltas(case, all_edits(case))), STAGE)


def test_probe_logits_before_and_after(case):
    followed.require(case, "final weights")
    moments = {"before": (), "after": all_edits(case)}
    pairs = [
        (moment, probe_logits(case, ours.deltas(case, edits)), case.arrays[f"probe/logits_{moment}"])
        for moment, edits in moments.items()
    ]
    assert_close(pairs, STAGE)
