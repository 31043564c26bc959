"""The shift from recorded keys, value gradients, statistics and networks."""

import functools

import jax

from emsedit_jax.edit import step
from emsedit_jax.meta.methods import method
from tests.parity import followed, ours
from tests.parity.compare import STAGE, assert_close

shift_of = functools.partial(jax.jit, static_argnums=(0, 1, 2))(step.shift_of)


def test_shift(case):
    followed.require(case, "shift")
    rule = method(case.config["editor"]["name"]).rule
    pairs = []
    for one in case.history.passes:
        if case.has(f"{one.key}/keys") and case.has(f"{one.key}/norm"):
            shift, _ = shift_of(
                ours.sites(case),
                rule,
                ours.spec(case, one.net),
                ours.theta_of(case, one),
                ours.stats(case, f"{one.key}/norm"),
                ours.trace(case, one.key),
            )
            pairs += ours.site_pairs(case, f"{one.key}/shift", shift)
    assert_close(pairs, STAGE)
