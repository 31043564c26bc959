import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.meta import trajectory
from emsedit_jax.meta.gradient import by_site
from emsedit_jax.run import watch
from tests import tiny_lm

EDITOR, ULTRAEDIT = tiny_lm.editor("emsedit"), tiny_lm.editor("ultraedit")
STATE = trajectory.init(EDITOR, 0)
BAD = float("nan")


def row(*, steps=2, losses=1, learning=True, **changes):
    """A batch's metrics that are all in order, with `changes`: {"name": {place: value}}."""
    found = {"edit_loss": [1.0] * steps} | {
        name: [{"a": value, "b": value} for _ in range(steps)]
        for name, value in {"shift_norm": 2.0, "solve_error": 1e-6}.items()
    }
    if learning:
        found |= {name: [3.0] * losses for name in ("equiv_loss", "locality_loss", "drift")}
        found["weight_grad_norm"] = [{"a": 3.0, "b": 3.0} for _ in range(losses)]
        found["own_grad_norm"] = [{"a": 3.0, "b": 3.0} for _ in range(steps)]
        found["grad_norm"] = [4.0] * steps
        found["network_norm"] = [5.0]
    for name, places in changes.items():
        for place, value in places.items():
            holder, key = (found[name][place[0]], place[1]) if isinstance(place, tuple) else (found[name], place)
            holder[key] = value
    return found


def said(found, editor=EDITOR, **place):
    with pytest.raises(watch.Diverged) as raised:
        watch.check(editor, {"phase": "train", "batch": 3} | place, found, None, STATE)
    assert "\n" not in str(raised.value)
    assert raised.value.state is STATE
    return str(raised.value)


def test_sound_numbers_pass():
    for found in (row(), row(losses=2), row(learning=False), row(solve_error={(0, "a"): watch.WORST_ERROR})):
        watch.check(EDITOR, {"phase": "train", "batch": 0}, found, None, STATE)
    mend = row()
    del mend["solve_error"]
    watch.check(tiny_lm.editor("mend"), {"phase": "train", "batch": 0}, mend, None, STATE)


@pytest.mark.parametrize(
    ("changes", "losses", "start"),
    [
        ({"edit_loss": {1: BAD}}, 1, "train batch 3, step 1: edit_loss is nan, the edits have diverged. Lower"),
        ({"shift_norm": {(0, "b"): np.inf}}, 1, "train batch 3, step 0, site b: shift_norm is inf, the edits have"),
        ({"equiv_loss": {0: BAD}}, 1, "train batch 3: equiv_loss is nan, the training has diverged. Lower"),
        ({"equiv_loss": {1: BAD}}, 2, "train batch 3, step 1: equiv_loss is nan, the training"),
        ({"drift": {0: np.inf}}, 1, "train batch 3: drift is inf"),
        ({"weight_grad_norm": {(0, "b"): BAD}}, 1, "train batch 3, site b: weight_grad_norm is nan, the training"),
        ({"weight_grad_norm": {(1, "b"): BAD}}, 2, "train batch 3, step 1, site b: weight_grad_norm is nan"),
        ({"own_grad_norm": {(1, "a"): BAD}}, 1, "train batch 3, step 1, site a: own_grad_norm is nan, the training"),
        ({"grad_norm": {1: np.inf}}, 1, "train batch 3, step 1: grad_norm is inf"),
        ({"network_norm": {0: np.inf}}, 1, "train batch 3: the optimiser's step would make network_norm inf: it was"),
        (
            {"solve_error": {(1, "a"): 0.25}},
            1,
            "train batch 3, step 1, site a: the equations of the weight change",
        ),
        (
            {"solve_error": {(1, "a"): BAD}},
            1,
            "train batch 3, step 1, site a: the equations of the weight change",
        ),
    ],
)
def test_a_number_gone_wrong_is_named_by_batch_step_and_site(changes, losses, start):
    assert said(row(losses=losses, **changes)).startswith(start)


@pytest.mark.parametrize(
    ("changes", "losses", "first"),
    [
        ({"edit_loss": {1: BAD}, "shift_norm": {(0, "b"): BAD}}, 1, "step 0, site b: shift_norm"),
        ({"shift_norm": {(0, "b"): BAD}, "solve_error": {(0, "b"): BAD}}, 1, "step 0, site b: the equations"),
        ({"edit_loss": {1: BAD}, "grad_norm": {0: BAD}}, 1, "step 1: edit_loss"),  # one loss, after both steps
        ({"edit_loss": {1: BAD}, "grad_norm": {0: BAD}}, 2, "step 0: grad_norm"),  # a loss and an update a step
        ({"equiv_loss": {0: BAD}, "grad_norm": {0: BAD}}, 1, "batch 3: equiv_loss"),
        ({"own_grad_norm": {(0, "b"): BAD}, "grad_norm": {0: BAD}, "network_norm": {0: BAD}}, 1, "step 0, site b: own"),
        ({"grad_norm": {0: BAD}, "network_norm": {0: BAD}}, 2, "step 0: grad_norm"),
    ],
)
def test_what_went_wrong_first_is_named(changes, losses, first):
    assert first in said(row(losses=losses, **changes))


def test_what_to_do_fits_the_editor():
    found = row(learning=False, solve_error={(0, "a"): 0.25})
    learned, plain = said(found), said(found, ULTRAEDIT, phase="edit")
    assert "(off by about 25.0%)" in learned
    assert "Lower --config.editor.lr or --config.editor.meta_lr, or edit fewer facts" in learned
    assert "meta_lr" not in plain
    assert plain.startswith("edit batch 3, step 0, site a: ")


def test_trajectories_are_named_from_the_second_on():
    found = row(edit_loss={0: BAD})
    assert said(found, trajectory=0).startswith("train batch 3, step 0")
    assert said(found, trajectory=2).startswith("train batch 3 of trajectory 2, step 0")


def test_an_update_that_was_not_made_is_told():
    place = {"phase": "train", "trajectory": 1}
    watch.check_update(place, jnp.float32(5), STATE)
    with pytest.raises(
        watch.Diverged, match=r"^train of trajectory 1: the optimiser's step would .*meta_lr\.$"
    ) as told:
        watch.check_update(place, jnp.float32(np.inf), STATE)
    assert told.value.state is STATE


def test_norms_are_by_site():
    sites = tiny_lm.SITES
    slopes = tuple(np.zeros((len(group.layers), group.k, group.v), np.float32) for group in sites)
    slopes[0][1, 3, 5:7] = 3, 4
    norms = watch._by_site(sites, watch.gradient_norms(by_site(tuple(map(jnp.asarray, slopes)))))
    names = [name for group in sites for name in group.names]
    assert {name: float(norm) for name, norm in norms.items()} == {name: 5.0 * (name == names[1]) for name in names}
