import pytest

from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import learned_ridge, normalised_ridge
from emsedit_jax.meta.methods import METHODS, method, net_specs
from tests.refusals import refused


def test_the_table():
    assert all(name == record.name and name in record.title.lower() for name, record in METHODS.items())
    assert (method("emsedit").rule, method("emsedit").learned, method("emsedit").drift_power) == (
        learned_ridge,
        True,
        2,
    )
    assert (method("ultraedit").rule, method("ultraedit").learned) == (normalised_ridge, False)


@pytest.mark.parametrize(
    ("name", "hint"), [("emsdit", "Did you mean 'emsedit'"), ("EMSEdit", "ultraedit"), ("", "known")]
)
def test_an_unknown_editor(name, hint):
    with refused(f"unknown editor {name!r}", "emsedit, ultraedit", hint):
        method(name)


def test_the_rank_falls_with_the_step():
    specs = net_specs(method("emsedit"), iters=4, lr=0.1, rank=10, n_blocks=3)
    assert specs == (NetSpec(10, 3, 0.1), NetSpec(5, 3, 0.1), NetSpec(3, 3, 0.1), NetSpec(2, 3, 0.1))
    assert [spec.rank for spec in net_specs(method("emsedit"), iters=3, lr=0.1, rank=2, n_blocks=1)] == [2, 1, 1]


def test_an_editor_without_networks_has_none():
    assert net_specs(method("ultraedit"), iters=2, lr=0.1) == (NetSpec(0, 0, 0.1),) * 2
