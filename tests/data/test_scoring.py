import jax
import numpy as np
import pytest

from emsedit_jax.data.batching import KINDS, plan_tasks
from emsedit_jax.data.records import Cue, EditRecord
from emsedit_jax.data.scoring import plan_scoring


def record(number, prompt, answer="xyz", equiv=("ab",), unrel=("c", "de")):
    return EditRecord(
        edit=Cue(prompt, answer),
        equiv=tuple(Cue(text, answer) for text in equiv),
        unrel=tuple(Cue(text, "q") for text in unrel),
        subject="s",
        source=f"eval.json row {number}",
    )


@pytest.fixture
def plan(letters):
    """Two batches of two facts; a prompt takes its letters, `<bos>` and all of the answer but one."""
    records = [record(number, "abcdefghij"[: 2 * number + 1]) for number in range(4)]
    return plan_tasks(records, letters, n_edits=2, num_batches=2, batch_size=1)


def test_prompts_are_cut_in_order_and_no_pass_is_over_the_limit(plan):
    lengths = {kind: [len(item.tokens) for item in plan.items[kind][0]] for kind in KINDS}
    assert lengths == {"edit": [4, 6], "equiv": [5, 5], "unrel": [2, 3, 2, 3]}
    cuts = [unit.sources for unit in plan_scoring(plan, 11).units(0)]
    assert cuts == [
        (("edit", 0), ("edit", 1)),
        (("equiv", 0), ("equiv", 1)),
        (("unrel", 0), ("unrel", 1), ("unrel", 2), ("unrel", 3)),
    ]
    assert [len(unit.sources) for unit in plan_scoring(plan, 10).units(0)] == [2, 2, 4]  # exactly full is not over
    assert [len(unit.sources) for unit in plan_scoring(plan, 9).units(0)] == [1, 1, 1, 2, 3]


@pytest.mark.parametrize("limit", [1, 6, 10, 10_000])
def test_every_prompt_is_in_one_pass_and_all_passes_have_one_shape(plan, limit):
    scoring = plan_scoring(plan, limit)
    units = [scoring.units(j) for j in range(2)]
    wanted = [(kind, place) for kind, count in (("edit", 2), ("equiv", 2), ("unrel", 4)) for place in range(count)]
    for batch in units:
        assert [source for unit in batch for source in unit.sources] == wanted
    shapes = {str(jax.tree.map(np.shape, unit.batch)) for batch in units for unit in batch}
    assert len(shapes) == 1
    passes = [len(batch) for batch in units]
    if limit == 1:
        assert passes == [8, 8]  # a prompt over the limit has a pass of its own
    if limit == 10_000:
        assert passes == [1, 1]


def test_a_pass_holds_the_prompts_it_names(plan):
    scoring = plan_scoring(plan, 9)
    for j in range(2):
        for unit in scoring.units(j):
            for number, (kind, place) in enumerate(unit.sources):
                item, batch = plan.items[kind][j][place], unit.batch
                mine = np.asarray(batch.item_a) == number
                assert tuple(np.asarray(batch.labels_a)[mine].tolist()) == item.labels
                at = np.asarray(batch.answer_at_a)[mine]
                read = np.asarray(batch.tokens_bt).ravel()[at]
                assert tuple(read.tolist()) == item.tokens[item.answer_start :]


def test_kinds_without_prompts_are_left_out(letters):
    records = [record(0, "ab", equiv=(), unrel=())]
    plan = plan_tasks(records, letters, n_edits=1, num_batches=1, batch_size=1)
    (unit,) = plan_scoring(plan, 100).units(0)
    assert unit.sources == (("edit", 0),)
