import numpy as np
import pytest

from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure import judge as judging
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.judge import judge
from emsedit_jax.measure.prefixes import PrefixStore
from tests.measure.test_likelihood import edited as edited
from tests.measure.test_likelihood import logits


def item(prompt, labels):
    return TokenItem((*prompt, *labels[:-1]), tuple(labels), len(prompt))


RNG = np.random.default_rng(0)
LONG = tuple(RNG.integers(5, 400, 300).tolist())
ITEMS = [  # some share a prompt, two are longer than what goes with the short ones
    item((1, 20, 30), (5,)),
    item((1, 20, 30), (6,)),
    item((1, 20, 30), (6, 7, 8)),
    item(LONG, (9, 4)),
    item((1,), (300,)),
    item(LONG[:140], (11,)),
    item((1, 20, 30), (5,)),
    item((1, 40), (20,) * 9),
]


def directly(lm, sites, deltas, one):
    """(log-probability in float64, whether greedy decoding says it) of an item alone in a pass."""
    tokens_bt = np.pad(one.tokens, (0, -len(one.tokens) % 64))[None]
    logits_tV = np.asarray(logits(lm.config, sites, lm.params, deltas, tokens_bt), np.float64)
    logits_tV = logits_tV[one.answer_start : len(one.tokens)]
    logprob_tV = logits_tV - np.log(np.sum(np.exp(logits_tV), axis=-1, keepdims=True))
    assert len(logprob_tV) == len(one.labels)
    likeliest = [int(row.argmax()) for row in logits_tV]
    return sum(row[token] for row, token in zip(logprob_tV, one.labels, strict=True)), likeliest


def model(lm, sites, deltas):
    return Edited(lm.config, sites, lm.params, deltas, PrefixStore(lm.config, sites, lm.params, 0))


@pytest.mark.parametrize("with_edits", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 64, 2048])
def test_items_are_judged_as_one_by_one(lm, sites, edited, with_edits, max_tokens):
    deltas = edited if with_edits else no_edit(sites)
    items = [*ITEMS]
    for one in (ITEMS[0], ITEMS[3]):  # what the model itself would say, and with another last token
        said = directly(lm, sites, deltas, one)[1]
        items += [item(one.tokens[: one.prompt_len], said[:1]), item(one.tokens[: one.prompt_len], [said[0] ^ 1])]
    wanted = [directly(lm, sites, deltas, one) for one in items]
    told = []
    found = judge(model(lm, sites, deltas), items, max_tokens, told.append)
    np.testing.assert_allclose(found.logprob, [logprob for logprob, _ in wanted], rtol=2e-5)
    assert found.greedy.tolist() == [said == list(one.labels) for one, (_, said) in zip(items, wanted, strict=True)]
    assert found.greedy.tolist()[-4:] == [True, False, True, False]
    assert sum(told) == len(items)
    assert len(told) > 2 or max_tokens > 64  # pass by pass


def test_a_model_without_sites_is_the_unedited_one(lm, sites):
    found = judge(model(lm, (), ()), ITEMS, 512)
    expected = judge(model(lm, sites, no_edit(sites)), ITEMS, 512)
    np.testing.assert_allclose(found.logprob, expected.logprob, rtol=1e-6)
    assert found.greedy.tolist() == expected.greedy.tolist()


def test_a_prompt_that_several_share_is_read_once_and_few_programs_do(lm, sites, monkeypatch):
    shapes, read = [], judging._read

    def counted(config, sites, params, deltas, prefix_md, batch, words_aw):
        shapes.append((batch.tokens_bt.shape, words_aw.shape, int((np.asarray(batch.item_a) >= 0).sum())))
        return read(config, sites, params, deltas, prefix_md, batch, words_aw)

    monkeypatch.setattr(judging, "_read", counted)
    edits = no_edit(sites)
    judge(model(lm, sites, edits), [item((1, 20, 30), (word,)) for word in range(40)], 2048)
    assert [rows for *_, rows in shapes] == [1]  # one row for forty answers
    shapes.clear()
    items = [item(LONG[:length], (7, 8)) for length in range(1, 250, 3)]
    judge(model(lm, sites, edits), items, 512)
    assert len({one[:2] for one in shapes}) == 2
    assert len(shapes) > 10


def test_nothing_is_judged_of_nothing(lm, sites):
    found = judge(model(lm, sites, no_edit(sites)), [], 512)
    assert (len(found.logprob), len(found.greedy)) == (0, 0)
