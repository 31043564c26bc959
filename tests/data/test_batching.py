from typing import Any

import jax
import numpy as np
import pytest

from emsedit_jax.data.batching import KINDS, plan_tasks, share_shapes
from emsedit_jax.errors import InputError
from tests.data.facts import record

RECORDS = [record(i, prompt="abcdefghijk"[: i + 1]) for i in range(11)]  # prompts of 1 to 11 letters


@pytest.fixture
def plan_of(letters):
    def plan_of(records=RECORDS, **options):
        settings: dict[str, Any] = {"n_edits": 3, "num_batches": 2, "batch_size": 2, **options}
        return plan_tasks(records, letters, **settings)

    return plan_of


def test_without_a_seed_batches_come_in_file_order_and_the_rest_is_dropped(plan_of):
    plan = plan_of(num_batches=None)
    assert plan.rows.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert plan.rows.dtype == np.int32
    assert len(plan) == len(list(plan)) == 3
    assert plan.records(1) == RECORDS[3:6]


def test_a_seed_draws_without_replacement_and_always_alike(plan_of):
    plan = plan_of(num_batches=3, seed=5)
    np.testing.assert_array_equal(plan.rows, plan_of(num_batches=3, seed=5).rows)
    assert len(set(plan.rows.ravel().tolist())) == 9
    assert plan.rows.tolist() != plan_of(num_batches=3, seed=6).rows.tolist()
    expected = np.random.default_rng(5).permutation(11)[:9].reshape(3, 3)
    np.testing.assert_array_equal(plan.rows, expected)
    assert plan.records(2) == [RECORDS[row] for row in expected[2]]


def test_fewer_batches_are_the_first_of_the_same_draw(plan_of):
    np.testing.assert_array_equal(plan_of(num_batches=1, seed=5).rows, plan_of(num_batches=3, seed=5).rows[:1])


def test_a_recorded_draw_is_repeated(plan_of):
    plan = plan_of(rows=np.array([[4, 0, 9], [2, 2, 1]]))
    assert plan.records(0) == [RECORDS[4], RECORDS[0], RECORDS[9]]
    assert plan.records(1) == [RECORDS[2], RECORDS[2], RECORDS[1]]
    assert plan.rows.dtype == np.int32


def test_a_task_holds_each_kind_in_its_own_order(plan_of):
    records = [
        record(0, prompt="a", answer="x", equiv=("bcd",), unrel=("ab",)),
        record(1, prompt="abc", answer="yz", equiv=("b",), unrel=("a",)),
    ]
    plan = plan_of(records, n_edits=2, num_batches=1, batch_size=1)
    (edit,), (equiv,), (unrel,) = (getattr(plan[0], kind) for kind in KINDS)
    assert edit.tokens_bt.tolist() == [[0, 1, 2, 3, 25, 0, 1, 0]]
    assert edit.labels_a.tolist()[:3] == [25, 26, 24]
    assert edit.item_a.tolist()[:3] == [1, 1, 0]
    assert edit.weights_a.tolist()[:3] == [0.5, 0.5, 1]
    assert plan.order(0, "edit").tolist() == [1, 0]
    assert equiv.tokens_bt.tolist() == [[0, 2, 3, 4, 0, 2, 25, 0]]
    assert plan.order(0, "equiv").tolist() == [0, 1]
    assert unrel.labels_a.tolist()[:2] == [17, 17]
    assert plan.order(0, "unrel").tolist() == [0, 1]


def test_all_cues_of_a_batch_are_pooled_and_know_their_record(plan_of):
    records = [
        record(0, equiv=("a", "abcd"), unrel=()),
        record(1, equiv=("abc",), unrel=("a", "b", "c")),
    ]
    plan = plan_of(records, n_edits=2, num_batches=1)
    assert plan.owners(0, "edit").tolist() == [0, 1]
    assert plan.owners(0, "equiv").tolist() == [0, 0, 1]
    assert plan.owners(0, "unrel").tolist() == [1, 1, 1]
    assert plan.order(0, "equiv").tolist() == [1, 2, 0]
    (equiv,) = plan[0].equiv
    assert equiv.item_a.tolist()[:9] == [1, 1, 1, 2, 2, 2, 0, 0, 0]
    # micro-batches of two prompts over the pool: 6 answer rows, then 3
    np.testing.assert_array_equal(equiv.weights_a[:9], np.array([1 / 6] * 6 + [1 / 3] * 3, np.float32))


@pytest.mark.parametrize("lacking", [range(6), range(3), range(1, 6)], ids=["all", "a batch", "all but one fact"])
@pytest.mark.parametrize("kind", ["equiv", "unrel"])
def test_facts_may_have_no_prompts_of_a_kind(plan_of, kind, lacking):
    records = [record(m, **({kind: ()} if m in lacking else {})) for m in range(6)]
    plan = plan_of(records, pass_tokens=8)
    for j in range(2):
        owners = [m - 3 * j for m in range(3 * j, 3 * j + 3) if m not in lacking]
        assert plan.owners(j, kind).tolist() == owners
        assert plan.order(j, kind).tolist() == list(range(len(owners)))
        passes = plan.batches(j, kind)
        assert sorted({int(m) for batch in passes for m in batch.item_a} - {-1}) == list(range(len(owners)))
        weights = sum(float(batch.weights_a.sum()) for batch in passes)
        np.testing.assert_allclose(weights, -(-len(owners) // 2))  # each micro-batch of two weighs 1, and none nothing
        for batch in passes:
            assert batch.tokens_bt.shape == plan.shapes[kind][-1][:2]
        assert plan.owners(j, "edit").tolist() == [0, 1, 2]
    (shared,) = share_shapes(plan)
    assert shared.shapes == plan.shapes
    assert [len(plan.batches(j, kind)) == 0 for j in range(2)] == [
        all(m in lacking for m in range(3 * j, 3 * j + 3)) for j in range(2)
    ]
    assert len(getattr(plan[1], kind)) == len(plan.batches(1, kind))


def test_all_batches_of_a_kind_have_one_shape(plan_of):
    plan = plan_of(num_batches=3, seed=1)
    for kind in KINDS:
        b, t, a, n, _ = plan.shapes[kind][-1]
        for task in plan:
            (batch,) = getattr(task, kind)
            assert batch.tokens_bt.shape == (b, t)
            assert batch.labels_a.shape == (a,)
            assert batch.captured_n.shape == (n,)


def test_a_large_kind_comes_in_passes_of_whole_micro_batches(plan_of):
    plan = plan_of(n_edits=5, num_batches=1, pass_tokens=18)
    whole = plan_of(n_edits=5, num_batches=1)
    lengths = [len(item.tokens) for item in plan.items["edit"][0]]
    assert lengths == [4, 5, 6, 7, 8]  # micro-batches of 8 + 7, 6 + 5, 4 tokens
    edit, equiv = plan[0].edit, plan[0].equiv
    assert [set(batch.item_a.tolist()) - {-1} for batch in edit] == [{4, 3}, {2, 1, 0}]
    assert [batch.item_a.tolist()[:6] for batch in edit] == [[4, 4, 4, 3, 3, 3], [2, 2, 2, 1, 1, 1]]
    assert len({str(jax.tree.map(np.shape, batch)) for batch in edit}) == 1
    assert [(batch.item_a >= 0).sum() for batch in equiv] == [6, 9]  # five prompts of 5 tokens: 10, then 10 + 5
    for kind in KINDS:  # the rows of all passes, one after the other, are those of the one pass
        (one,) = getattr(whole[0], kind)
        passes = getattr(plan[0], kind)
        for field in ("labels_a", "weights_a", "item_a"):
            rows = np.concatenate([getattr(batch, field)[batch.item_a >= 0] for batch in passes])
            np.testing.assert_array_equal(rows, getattr(one, field)[one.item_a >= 0])
    alone = plan_of(n_edits=5, num_batches=1, pass_tokens=1)  # a micro-batch is never cut
    assert [len(getattr(alone[0], kind)) for kind in KINDS] == [3, 3, 3]


def test_a_part_of_a_plan_holds_the_same_batches_in_the_same_shapes(plan_of):
    plan = plan_of(num_batches=3, seed=1)
    part = plan.part(1, 3)
    assert (len(part), part.shapes) == (2, plan.shapes)
    for j in range(2):
        assert part.records(j) == plan.records(j + 1)
        jax.tree.map(np.testing.assert_array_equal, part[j], plan[j + 1])
    assert len(plan.part(3, 3)) == 0


def test_plans_can_share_one_shape(plan_of):
    short, long = plan_of(RECORDS[:3], num_batches=1), plan_of(RECORDS[6:], num_batches=1)
    assert short.shapes["edit"] != long.shapes["edit"]
    one, other = share_shapes(short, long)
    assert one.shapes == other.shapes
    shapes = [jax.tree.map(np.shape, plan[0]) for plan in (one, other)]
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])
    assert one[0].edit[0].labels_a.tolist() == short[0].edit[0].labels_a.tolist()
    with pytest.raises(InputError, match="one token rule, not all, ans"):
        share_shapes(short, plan_of(token="all"))


def test_every_text_is_tokenised_once(letters):
    seen = []

    def counting(texts, **options):
        seen.extend(texts)
        return letters(texts, **options)

    plan = plan_tasks(RECORDS, counting, n_edits=5, num_batches=2, batch_size=2)
    calls = len(seen)
    assert calls == 3 * 2 * 10  # three kinds, prompt and answer, ten records drawn of eleven
    assert len([plan[j] for j in (0, 1, 0)]) == 3
    assert len(seen) == calls


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"num_batches": 4},
            "4 x n_edits=3 = 12 facts are needed, but there are 11 .*eval.json row 0.*lower dataset.n_edit",
        ),
        ({"n_edits": 12, "num_batches": 1}, "1 x n_edits=12 = 12 facts are needed, but there are 11"),
        ({"n_edits": 12, "num_batches": None}, "1 x n_edits=12 = 12 facts are needed"),
        ({"records": []}, "2 x n_edits=3 = 6 facts are needed, but there are 0: lower"),
        ({"n_edits": 0}, "n_edits=0: both must be at least 1"),
        ({"num_batches": 0}, "0 batches .*: both must be at least 1"),
        ({"batch_size": 0}, "set dataset.batch_size, now 0"),
        ({"token": "answer"}, "no token rule 'answer'"),
        ({"seed": -1}, "A seed is 0 or larger, or None for file order, not -1"),
        ({"rows": np.zeros((2, 4), int)}, r"rows has the shape \(2, 4\), not .* \(2, 3\)"),
        ({"rows": np.zeros(6, int)}, r"rows has the shape \(6,\)"),
        ({"rows": np.full((2, 3), 11)}, "whole numbers from 0 to 10"),
        ({"rows": np.full((2, 3), -1)}, "whole numbers from 0 to 10"),
        ({"rows": np.zeros((2, 3))}, "whole numbers from 0 to 10"),
        (
            {"max_tokens": 4},
            r"^6 bad rows .*: eval.json row 1 \(edit\): prompt and answer take 5 tokens, the model takes 4; .*; "
            r"eval.json rows 0-5 \(equiv\): prompt and answer take 5 tokens, the model takes 4\. Correct these rows",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(plan_of, options, says):
    with pytest.raises(InputError, match=says):
        plan_of(**options)


def test_the_row_whose_answer_tokenises_to_nothing_is_named(plan_of):
    records = [*RECORDS[:5], record(5, answer="!")]
    with pytest.raises(InputError, match=r"eval.json row 5 \(edit\): the answer '!' tokenises to nothing"):
        plan_of(records)
    assert len(plan_of(records, num_batches=1)) == 1  # the row is not drawn
