import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsedit_jax.data.batching import KINDS, plan_tasks
from emsedit_jax.data.records import Cue, EditRecord
from emsedit_jax.data.scoring import contest, plan_scoring
from emsedit_jax.data.tokens import TokenItem
from tests.data import facts

record = functools.partial(facts.record, equiv=("ab",), unrel=("c", "de"))


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
    units = [list(scoring.units(j)) for j in range(2)]
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


# ---------------------------------------------------------------------------------------------- comparisons


def against(prompt_len, labels, versus):
    """A prompt of so many tokens (1, 1, ...) with its answer and the one to be beaten."""
    return TokenItem((*[1] * prompt_len, *labels[:-1]), tuple(labels), prompt_len, tuple(versus))


# Columns of the two micro-batches of two, longest first; L: a label, V: a token of the other answer, p: padding.
#   wide   . . . L L L      . . . V V          labels are 6 wide, the others 5: cut to 5
#   tall   . . . . L        . . . . V
#   short  . L L            . V V V V V        labels are 3 wide, the others 6: cut to 3
#   one    . . L            . . V
WIDE, TALL = against(4, [11, 12, 13], [21, 22]), against(5, [14], [24])
SHORT, ONE = against(2, [15, 16], [25, 26, 27, 28, 29]), against(3, [17], [17])


def test_both_answers_are_cut_to_the_narrower_width_of_their_own_micro_batch():
    assert [len(item.tokens) for item in (WIDE, TALL, SHORT, ONE)] == [6, 5, 3, 3]
    wide, tall = contest([WIDE, TALL], 2)
    assert wide == TokenItem((1, 1, 1, 1, 11), (11, 12), 4, (21, 22))  # 13, in column 5, is not scored
    assert tall == TALL
    short, one = contest([SHORT, ONE], 2)
    assert short == SHORT._replace(versus=(25, 26))
    assert one == ONE
    assert contest([ONE, WIDE, SHORT, TALL], 2) == [one, wide, short, tall]  # sorted, then cut by two, then put back


def test_labels_behind_the_other_answers_end_are_compared_with_its_padding():
    # side by side with SHORT, whose other answer is 6 columns wide, all of WIDE's labels are scored, the last against 0
    assert contest([WIDE, SHORT], 2) == [WIDE._replace(versus=(21, 22, 0)), SHORT._replace(versus=(25, 26))]
    # alone, its own other answer's end is the cut
    assert contest([WIDE], 1)[0].labels == (11, 12)
    assert contest([WIDE, SHORT], 1)[0].labels == (11, 12)
    # labels 4 wide, the other answers 3 wide because of the second prompt
    assert contest([against(1, [5, 6, 7, 8], [9]), against(3, [2], [3])], 2)[0] == TokenItem(
        (1, 5, 6), (5, 6, 7), 1, (9, 0, 0)
    )


def test_prompts_without_comparison_are_left_as_they_are():
    plain = against(4, [11, 12, 13], [])
    assert contest([plain, plain], 2) == [plain, plain]
    assert contest([plain, TALL], 2) == [plain, TALL]
    assert contest([], 2) == []


def published(items, micro_batch_size):
    """(label, token to beat) pairs that count for each prompt, by padding and cutting whole micro-batches."""
    found = {}
    ranked = sorted(range(len(items)), key=lambda m: -len(items[m].tokens))
    for start in range(0, len(ranked), micro_batch_size):
        chosen = ranked[start : start + micro_batch_size]
        sides = []
        for field, fill in (("labels", -100), ("versus", 0)):
            rows = [[-100] * items[m].answer_start + list(getattr(items[m], field)) for m in chosen]
            widest = max(map(len, rows))
            sides.append(np.array([row + [fill] * (widest - len(row)) for row in rows]))
        width = min(side.shape[1] for side in sides)
        labels, others = (side[:, :width] for side in sides)
        for m, row, other in zip(chosen, labels, others, strict=True):
            found[m] = list(zip(row[row != -100].tolist(), other[row != -100].tolist(), strict=True))
    return [found[m] for m in range(len(items))]


answers = st.lists(st.integers(0, 9), min_size=1, max_size=6)
contests = st.lists(st.builds(against, st.integers(1, 8), answers, answers), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(contests, st.integers(1, 5))
def test_what_counts_is_what_padded_and_cut_arrays_give(items, micro_batch_size):
    for item, mine, pairs in zip(
        items, contest(items, micro_batch_size), published(items, micro_batch_size), strict=True
    ):
        assert list(zip(mine.labels, mine.versus, strict=True)) == pairs
        assert len(mine.tokens) == mine.prompt_len + len(mine.labels) - 1
        assert mine.tokens == item.tokens[: len(mine.tokens)]


@pytest.fixture
def compared(letters):
    """One batch of four facts in micro-batches of two; new and true answers of many lengths."""
    answers = ["xyz", "q", "wvutsr", "no"]
    records = [
        EditRecord(
            edit=Cue("abcdefg"[: number + 1], answers[number], versus=answers[number - 1]),
            equiv=tuple(Cue(text, answers[number], versus=answers[number - 1]) for text in ("ab", "abcd")),
            unrel=(Cue("e" * (4 - number), answers[number - 1], versus=answers[number]),),
            subject="s",
            source=f"eval.json row {number}",
        )
        for number in range(4)
    ]
    return plan_tasks(records, letters, n_edits=4, num_batches=1, batch_size=2)


def test_the_passes_do_not_change_what_a_label_is_compared_with(compared):
    expected = {
        (kind, place): pairs for kind in KINDS for place, pairs in enumerate(published(compared.items[kind][0], 2))
    }
    assert any(len(pairs) < len(compared.items[kind][0][place].labels) for (kind, place), pairs in expected.items())
    for limit in (1, 7, 30, 10_000):
        found = {}
        for unit in plan_scoring(compared, limit).units(0):
            batch = unit.batch
            assert batch.versus_a is not None
            for number, source in enumerate(unit.sources):
                mine = np.asarray(batch.item_a) == number
                labels, others = (np.asarray(array)[mine].tolist() for array in (batch.labels_a, batch.versus_a))
                found[source] = list(zip(labels, others, strict=True))
        assert found == expected


def test_comparing_passes_have_one_shape_and_others_have_nothing_to_compare(compared, plan):
    scoring = plan_scoring(compared, 12)
    trees = [jax.tree.map(np.shape, unit.batch) for unit in scoring.units(0)]
    assert len(trees) > 2
    assert len({str(tree) for tree in trees}) == 1
    assert scoring.compare
    assert not plan_scoring(plan, 12).compare
    assert all(unit.batch.versus_a is None for unit in plan_scoring(plan, 12).units(0))
    # edits are learnt from whole answers: only scoring cuts them
    assert [len(item.labels) for item in compared.items["edit"][0]] == [3, 1, 6, 2]
