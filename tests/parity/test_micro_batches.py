"""Packed batches, taken apart again, are the recorded micro-batches; so is what their scores count."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from emsedit_jax.data.batching import KINDS, EditPlan
from emsedit_jax.data.scoring import plan_scoring
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.measure.scores import NAMES
from tests.parity import followed, ours
from tests.parity.golden import Case


def unpacked(plan: EditPlan, j: int, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens, labels aligned with them) of each prompt of a packed batch, in the published order."""
    passes = getattr(plan[j], kind)
    prompts = []
    for item in plan.order(j, kind):
        (batch,) = (one for one in passes if (one.item_a == item).any())
        tokens_m, segments_m = batch.tokens_bt.reshape(-1), batch.segments_bt.reshape(-1)
        rows_m = np.repeat(np.arange(len(batch.tokens_bt)), batch.tokens_bt.shape[1])
        answer = batch.item_a == item
        at = batch.answer_at_a[answer]
        inside = np.flatnonzero((rows_m == rows_m[at[0]]) & (segments_m == segments_m[at[0]]))
        assert batch.positions_bt.reshape(-1)[inside].tolist() == list(range(len(inside)))
        labels = np.full(len(inside), -100)
        labels[at - inside[0]] = batch.labels_a[answer]
        prompts.append((tokens_m[inside], labels))
    return prompts


def others(plan: EditPlan, j: int, kind: str) -> list[np.ndarray]:
    """The answers to be beaten, behind their prompts, in the published order; empty for a data set without."""
    items = [plan.items[kind][j][m] for m in plan.order(j, kind)]
    return [np.array([-100] * item.answer_start + list(item.versus)) for item in items if item.versus]


def padded(rows: Sequence[np.ndarray], fill: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, max(map(len, rows)) - len(row)), constant_values=fill) for row in rows])


def test_micro_batches_are_the_recorded_ones(case):
    followed.require(case, "micro-batches")
    size = case.config["dataset"]["batch_size"]
    for phase, plan in ours.plans(case).items():
        for j in range(len(plan)):
            for kind in KINDS:
                prompts, rivals = unpacked(plan, j, kind), others(plan, j, kind)
                again = unpacked(dataclasses.replace(plan, pass_tokens=60), j, kind)  # in passes of few micro-batches
                for one, same in zip(prompts, again, strict=True):
                    np.testing.assert_array_equal(one, same)
                for number, start in enumerate(range(0, len(prompts), size)):
                    tokens, labels = zip(*prompts[start : start + size], strict=True)
                    own = {
                        "input_ids": padded(tokens, 0),
                        "attention_mask": padded([np.ones_like(row) for row in tokens], 0),
                        "labels": padded(labels, -100),
                    }
                    if rivals:
                        own["old_labels"] = padded(rivals[start : start + size], 0)
                    prefix = f"batch/{phase}/{j}/{kind}/{number}"
                    recorded = case.under(prefix)
                    assert recorded.keys() == own.keys(), prefix
                    for field, array in recorded.items():
                        np.testing.assert_array_equal(own[field], array, f"{prefix}/{field}")
                assert not case.has(f"batch/{phase}/{j}/{kind}/{number + 1}")


def test_rows_weigh_one_over_the_labels_of_their_micro_batch(case):
    followed.require(case, "micro-batches")
    for phase, plan in ours.plans(case).items():
        for j in range(len(plan)):
            for kind in KINDS:
                rank = np.argsort(plan.order(j, kind))  # a prompt's place in the published order
                sums = np.zeros(-(-len(rank) // plan.batch_size))
                for batch in getattr(plan[j], kind):
                    used = batch.item_a >= 0
                    np.add.at(sums, rank[batch.item_a[used]] // plan.batch_size, batch.weights_a[used])
                np.testing.assert_allclose(sums, 1, rtol=1e-6, err_msg=phase)


def counted(case: Case, prefix: str) -> list[tuple[list[int], list[int]]]:
    """(labels, tokens to beat) of each prompt of one batch, from recorded arrays: cut to the narrower of the two."""
    fields, found, number = case.under(prefix), [], 0
    while f"{number}/labels" in fields:
        labels = fields[f"{number}/labels"]
        other = fields.get(f"{number}/old_labels")
        width = labels.shape[1] if other is None else min(labels.shape[1], other.shape[1])
        for row, label in enumerate(labels[:, :width]):
            used = label != -100
            found.append((label[used].tolist(), [] if other is None else other[row, :width][used].tolist()))
        number += 1
    return found


def scored(case: Case) -> dict[str, list[list[TokenItem]]]:
    """Kind -> what the scoring passes hold of each batch, in the published order."""
    plan = ours.plans(case)["valid"]
    items = plan_scoring(plan, 512).items
    return {kind: [[items[kind][j][m] for m in plan.order(j, kind)] for j in range(len(plan))] for kind in KINDS}


def test_scores_count_the_recorded_labels_up_to_the_narrower_width(case):
    followed.require(case, "micro-batches")
    for kind, batches in scored(case).items():
        for j, items in enumerate(batches):
            prefix = f"batch/valid/{j}/{kind}"
            assert [([*item.labels], [*item.versus]) for item in items] == counted(case, prefix), prefix


def test_recorded_scores_are_shares_of_the_counted_labels(case):
    followed.require(case, "micro-batches")
    for kind, batches in scored(case).items():
        items = [item for batch in batches for item in batch]
        counts = np.array([len(item.labels) for item in items])
        lost = np.array([sum(a == b for a, b in zip(item.labels, item.versus, strict=False)) for item in items])
        keys = [key for key in case.arrays if key.startswith("eval/") and key.endswith(NAMES[kind])]
        assert keys
        for key in keys:  # after some batch the first ones are scored
            scores = case.arrays[key].astype(np.float64)
            right, size = scores * counts[: len(scores)], len(scores)
            np.testing.assert_allclose(right, np.round(right), rtol=0, atol=1e-5, err_msg=key)
            assert (np.round(right) <= (counts - lost)[:size]).all(), key  # no token beats itself
