"""The table of editors: what each is, as METHODS sections 3, 4 and 6 have it."""

import pytest

from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import LEARNED_RIDGE, NORMALISED_RIDGE, PSEUDO_PRODUCT
from emsedit_jax.meta.methods import METHODS, method, net_specs
from tests.refusals import refused


def test_rows_are_found_by_their_names():
    assert {"emsedit", "rledit", "malmen", "mend", "ultraedit"} <= set(METHODS)
    assert all(name == record.name and name in record.title.lower() for name, record in METHODS.items())
    assert all(method(name) is record for name, record in METHODS.items())


def test_who_solves_what():
    assert {name: METHODS[name].rule for name in ("emsedit", "rledit", "malmen", "mend", "ultraedit")} == {
        "emsedit": LEARNED_RIDGE,
        "rledit": LEARNED_RIDGE,
        "malmen": LEARNED_RIDGE,
        "mend": PSEUDO_PRODUCT,
        "ultraedit": NORMALISED_RIDGE,
    }
    assert [name for name, record in METHODS.items() if not record.learned] == ["ultraedit"]


def test_who_looks_at_unrelated_and_at_former_prompts():
    assert [name for name in ("emsedit", "rledit", "malmen", "mend") if METHODS[name].locality] == [
        "rledit",
        "malmen",
        "mend",
    ]
    assert [name for name, record in METHODS.items() if record.replay] == ["rledit"]


@pytest.mark.parametrize(
    ("name", "alone", "in_sequence"),
    [("emsedit", True, False), ("rledit", False, False), ("malmen", True, True), ("mend", True, True)],
)
def test_who_learns_step_by_step(name, alone, in_sequence):
    """EMSEdit's training is a trajectory only where the batches are a sequence, RLEdit's always."""
    assert method(name).is_stepwise(1) is alone
    assert method(name).is_stepwise(2) is method(name).is_stepwise(600) is in_sequence


DRIFT = [  # editor, batches in sequence, reading: the coefficient for reg_coef = 0.5
    ("emsedit", 2, "program", 0.25),
    ("emsedit", 1, "program", 0.5),
    ("emsedit", 2, "paper", 0.5),
    ("emsedit", 1, "paper", 0.5),
    ("rledit", 2, "program", 0),
    ("rledit", 2, "paper", 0.5),
    ("malmen", 1, "program", 0),
    ("mend", 1, "paper", 0),
    ("ultraedit", 2, "program", 0),
]


@pytest.mark.parametrize(("name", "num_seq", "reading", "coef"), DRIFT)
def test_how_much_drift_counts(name, num_seq, reading, coef):
    assert method(name).drift_coef(0.5, num_seq, reading) == coef


@pytest.mark.parametrize(
    ("name", "hint"), [("emsdit", "Did you mean 'emsedit'"), ("EMSEdit", "ultraedit"), ("", "known")]
)
def test_an_unknown_editor(name, hint):
    with refused(f"unknown editor {name!r}", *METHODS, hint):
        method(name)


def test_the_rank_falls_with_the_step():
    specs = net_specs(method("emsedit"), iters=4, lr=0.1, rank=10, n_blocks=3)
    assert specs == (NetSpec(10, 3, 0.1), NetSpec(5, 3, 0.1), NetSpec(3, 3, 0.1), NetSpec(2, 3, 0.1))
    assert [spec.rank for spec in net_specs(method("emsedit"), iters=3, lr=0.1, rank=2, n_blocks=1)] == [2, 1, 1]


@pytest.mark.parametrize("name", [name for name, record in METHODS.items() if record.learned])
@pytest.mark.parametrize("num_seq", [1, 2])
def test_one_network_for_all_steps_or_one_for_each(name, num_seq):
    specs = net_specs(method(name), iters=2, lr=0.1, num_seq=num_seq, rank=10, n_blocks=3)
    shared = method(name).is_stepwise(num_seq)
    assert specs == ((NetSpec(10, 3, 0.1),) if shared else (NetSpec(10, 3, 0.1), NetSpec(5, 3, 0.1)))


@pytest.mark.parametrize("num_seq", [1, 2])
def test_an_editor_without_networks_has_a_normaliser_for_each_step(num_seq):
    assert net_specs(method("ultraedit"), iters=2, lr=0.1, num_seq=num_seq) == (NetSpec(0, 0, 0.1),) * 2
