"""Training batches on the tiny random language model, with the settings that each editor's own training has."""

from collections.abc import Sequence

import jax
import numpy as np

from emsedit_jax.edit.step import no_edit
from emsedit_jax.meta import trajectory
from emsedit_jax.meta.gradient import Lesson, OptimiserSpec
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.meta.trajectory import Editor, Learning
from emsedit_jax.types import EditTask, MetaState
from tests import tiny_lm
from tests.tiny_lm import SITES

LEARNED = [name for name, method in METHODS.items() if method.learned]
STEPWISE = [name for name in LEARNED if METHODS[name].is_stepwise(1)]  # one batch at a time
TRAJECTORY = [name for name in LEARNED if not METHODS[name].is_stepwise(2)]
REG_COEF, DECAY = 0.5, 0.9
META_LR = 1e-3


def learning(name: str, num_seq: int = 2, reading: str = "program", **changes) -> Learning:
    """The editor's own way to learn."""
    method = METHODS[name]
    stepwise = method.is_stepwise(num_seq)
    return Learning(
        OptimiserSpec(META_LR),
        max_grad_norm=1.0,
        keep_edits=not stepwise,
        update_every="step" if stepwise else "trajectory",
        drift_coef=method.drift_coef(REG_COEF, num_seq, reading),
        loc_coef=0.6 if method.locality else 0.0,
        time_decay=DECAY if method.replay else 1.0,
        back_depth=3 if method.replay else 1,
    )._replace(**changes)


def lessons(params, tasks: Sequence[EditTask], decay: float = 1.0) -> list[Lesson]:
    """What the batches are to teach, newest first."""
    return [
        Lesson(tiny_lm.given(params, task.equiv), tiny_lm.given(params, task.unrel), decay**age)
        for age, task in enumerate(tasks)
    ]


def fresh(editor: Editor, learning: Learning, seed: int = 0) -> MetaState:
    """Networks with no number 0 or 1 any more, nothing learnt with them yet."""
    state = trajectory.init(editor, seed, learning)
    return MetaState(tiny_lm.worn(state.thetas), state.stats, state.opt_state, state.grads)


def train(params, editor: Editor, learning: Learning, state: MetaState, tasks: Sequence[EditTask], deltas=None):
    """`train_batch` on the first task, the others being former ones; the state given stays good to use."""
    deltas = no_edit(SITES) if deltas is None else jax.device_put(deltas)
    prompts = tiny_lm.given(params, tasks[0].edit)
    taught = lessons(params, tasks, learning.time_decay)
    return trajectory.train_batch(editor, learning, params, deltas, jax.device_put(state), prompts, taught, shifts=True)


def times(coef: float, tree):
    """Every leaf multiplied."""
    return jax.device_put(jax.tree.map(lambda leaf: coef * np.asarray(leaf), tree))


def plus(*trees):
    """The trees summed."""
    return jax.device_put(jax.tree.map(lambda *leaves: sum(map(np.asarray, leaves)), *trees))


def minus(one, other):
    """The trees' difference."""
    return jax.device_put(jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), one, other))


def norm(tree) -> float:
    """Of all leaves together."""
    return float(np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(tree))))


def clipped(tree, limit: float = 1.0):
    """The tree scaled down to the norm."""
    return times(min(1.0, limit / (norm(tree) + 1e-6)), tree)
