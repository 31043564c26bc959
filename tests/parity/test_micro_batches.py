"""Packed batches, taken apart again, are the recorded micro-batches."""

from collections.abc import Sequence

import numpy as np

from emsedit_jax.data.batching import KINDS, EditPlan
from tests.parity import built, ours


def unpacked(plan: EditPlan, j: int, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens, labels aligned with them) of each prompt of a packed batch, in the published order."""
    batch = getattr(plan[j], kind)
    tokens_m, segments_m = batch.tokens_bt.reshape(-1), batch.segments_bt.reshape(-1)
    rows_m = np.repeat(np.arange(len(batch.tokens_bt)), batch.tokens_bt.shape[1])
    prompts = []
    for item in plan.order(j, kind):
        answer = batch.item_a == item
        at = batch.answer_at_a[answer]
        inside = np.flatnonzero((rows_m == rows_m[at[0]]) & (segments_m == segments_m[at[0]]))
        assert batch.positions_bt.reshape(-1)[inside].tolist() == list(range(len(inside)))
        labels = np.full(len(inside), -100)
        labels[at - inside[0]] = batch.labels_a[answer]
        prompts.append((tokens_m[inside], labels))
    return prompts


def padded(rows: Sequence[np.ndarray], fill: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, max(map(len, rows)) - len(row)), constant_values=fill) for row in rows])


def test_micro_batches_are_the_recorded_ones(case):
    built.require(case, "micro-batches")
    size = case.config["dataset"]["batch_size"]
    for phase, plan in ours.plans(case).items():
        for j in range(len(plan)):
            for kind in KINDS:
                prompts = unpacked(plan, j, kind)
                for number, start in enumerate(range(0, len(prompts), size)):
                    tokens, labels = zip(*prompts[start : start + size], strict=True)
                    own = {
                        "input_ids": padded(tokens, 0),
                        "attention_mask": padded([np.ones_like(row) for row in tokens], 0),
                        "labels": padded(labels, -100),
                    }
                    prefix = f"batch/{phase}/{j}/{kind}/{number}"
                    recorded = case.under(prefix)
                    assert recorded.keys() == own.keys(), prefix
                    for field, array in recorded.items():
                        np.testing.assert_array_equal(own[field], array, f"{prefix}/{field}")
                assert not case.has(f"batch/{phase}/{j}/{kind}/{number + 1}")


def test_rows_weigh_one_over_the_labels_of_their_micro_batch(case):
    built.require(case, "micro-batches")
    for phase, plan in ours.plans(case).items():
        for j in range(len(plan)):
            for kind in KINDS:
                weights_a = getattr(plan[j], kind).weights_a
                np.testing.assert_allclose(ours.micro_batch_sums(plan, j, kind, weights_a), 1, rtol=1e-6, err_msg=phase)
