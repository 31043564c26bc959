"""The recorded models' logits, without any edit."""

import numpy as np

from tests.parity import golden, ours


def test_logits(recorded_model):
    folder = golden.ROOT / "models" / recorded_model
    with np.load(folder / "forward.npz", allow_pickle=False) as recorded:
        ids, mask, expected = (recorded[key] for key in ("input_ids", "attention_mask", "logits"))
    logits = np.where(mask[..., None] == 1, np.asarray(ours.lm(folder).logits(ids, mask)), 0)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
