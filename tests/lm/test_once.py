"""What a pass needs in many places is computed once: XLA, or JAX's way back, would do it at each."""

import functools

import jax
import pytest

from emsedit_jax.edit import capture, step
from tests import jaxprs, tiny_lm
from tests.tiny_lm import CONFIG, SITES

ANSWERS = tiny_lm.packed(tiny_lm.prompts([(5, 2), (7, 3), (4, 1)]))


def given():
    params = tiny_lm.weights()
    prefix_md = capture.prefix(CONFIG, SITES, params, ANSWERS)
    return functools.partial(capture.capture, CONFIG, SITES), (params, step.no_edit(SITES), prefix_md, ANSWERS)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of the program that XLA makes for a CPU")
def test_cosines_and_sines_of_the_angles():
    """Not for the queries and keys of each layer, forward and backward."""
    program, args = given()
    compiled = jax.jit(program).lower(*args).compile().as_text() or ""
    assert [compiled.count(f" {name}(") for name in ("cosine", "sine")] == [1, 1]


def test_value_gradients_of_all_sites_are_put_together():
    """Probes in one array would be pulled back as a sum of as many such arrays."""
    program, args = given()
    n = ANSWERS.capture_at_n.shape[0]
    arrays = [(len(group.layers), n, group.v) for group in SITES]
    for name in ("pad", "add_any"):
        assert not [one for one in jaxprs.equations(name, program, *args) if one.outvars[0].aval.shape in arrays]
