"""Every family against Hugging Face's model in torch: small random ones of many layouts, logits and greedy tokens."""

from __future__ import annotations

import numpy as np
import pytest

from emsedit_jax.lm.families import FAMILIES
from emsedit_jax.lm.generate import greedy
from tests.parity.random_models import CASES, KINDS, LAYOUTS, LENGTH, built, ours, ragged, reference, torch

NEW = 12


def check(folder, family: str, layout: str, seed: int) -> None:
    theirs = built(family, layout, seed)
    theirs.save_pretrained(folder)
    lm = ours(folder)
    for side in ("right", "left"):
        ids, mask = ragged(seed, side)
        expected, found = reference(theirs, ids, mask), np.asarray(lm.logits(ids, mask))
        assert expected[mask == 1].std() > 0.5
        np.testing.assert_allclose(found[mask == 1], expected[mask == 1], rtol=0, atol=1e-4, err_msg=side)
    ids, mask = ragged(seed + 1, "left")
    with torch.no_grad():
        given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        said = theirs.generate(**given, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0).numpy()
    prompts = [row[at == 1].tolist() for row, at in zip(ids, mask, strict=True)]
    assert greedy(lm.config, lm.params, prompts, NEW) == said[:, LENGTH:].tolist()


def test_every_family_is_compared():
    assert set(LAYOUTS) == set(KINDS) == set(FAMILIES)


@pytest.mark.parametrize(("family", "layout"), CASES)
def test_logits_and_greedy_tokens(tmp_path, family, layout):
    check(tmp_path, family, layout, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize(("family", "layout"), CASES)
def test_logits_and_greedy_tokens_of_more_models(tmp_path, family, layout, seed):
    check(tmp_path, family, layout, seed)
