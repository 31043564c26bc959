import jax
import numpy as np
import pytest

from emsedit_jax.data.records import Cue, EditRecord
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure import contest as contests
from emsedit_jax.measure.contest import contest, plan_contest
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.likelihood import Likelihoods
from emsedit_jax.measure.prefixes import PrefixStore

FACTS = [
    EditRecord(
        edit=Cue("Paris lies in", "Italy", versus="France"),
        equiv=(Cue("Where is Paris?", "Italy", versus="France"),),
        unrel=(Cue("Lyon lies in", "France", versus="Italy"), Cue("Nice lies in", "France", versus="Italy")),
        subject="Paris",
        source="a.json row 0",
    ),
    EditRecord(
        edit=Cue("Six", "seven"),  # nothing to beat
        equiv=(Cue("Six", "eight"), Cue("Six", "eight", versus="nine hundred and one")),
        unrel=(),
        subject="",
        source="a.json row 4",
    ),
]
ITEMS = {
    "ES": ("a.json row 0",),
    "GS": ("a.json row 0", "a.json row 4 #1"),
    "LS": ("a.json row 0 #0", "a.json row 0 #1"),
}


@pytest.fixture(scope="module")
def plan(lm):
    return plan_contest(FACTS, lm.tokenizer, max_tokens=64, longest=None)


def scored(lm, sites, plan, deltas):
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    return contest(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "contest")


def alone(lm, prompt, answer):
    """exp(mean log-probability of the answer's tokens), from the whole model's logits."""
    asked = lm.tokenizer([prompt])["input_ids"][0]
    said = lm.tokenizer([" " + answer], add_special_tokens=False)["input_ids"][0]
    logits_tV = np.asarray(lm.logits(np.array([asked + said]), np.ones((1, len(asked + said)), np.int64))[0])
    logprob_tV = np.asarray(jax.nn.log_softmax(logits_tV[len(asked) - 1 : -1].astype(np.float64)))
    return np.exp(np.mean([row[token] for row, token in zip(logprob_tV, said, strict=True)]))


def test_probabilities_are_those_of_a_token_of_the_answer(lm, sites, plan):
    found = scored(lm, sites, plan, no_edit(sites))
    kinds = {"ES": [FACTS[0].edit], "GS": [FACTS[0].equiv[0], FACTS[1].equiv[1]], "LS": FACTS[0].unrel}
    assert sorted(found) == sorted(f"{name}.{what}" for name in ITEMS for what in ("likelier", "margin"))
    lengths = {len(item.labels) for item in plan.candidates.questions.items}
    assert len(lengths) > 1
    for name, cues in kinds.items():
        margins = [alone(lm, cue.prompt, cue.answer) - alone(lm, cue.prompt, cue.versus) for cue in cues]
        np.testing.assert_allclose(found[f"{name}.margin"].values, margins, rtol=1e-3)
        assert found[f"{name}.likelier"].values.tolist() == [float(margin > 0) for margin in margins]
        assert found[f"{name}.margin"].items == found[f"{name}.likelier"].items == ITEMS[name]


def test_edits_decide_it(lm, sites, plan):
    keys = jax.random.split(jax.random.key(3), len(sites))
    edited = tuple(0.5 * jax.random.normal(key, zero.shape) for key, zero in zip(keys, no_edit(sites), strict=True))
    before, after = (scored(lm, sites, plan, deltas) for deltas in (no_edit(sites), edited))
    assert all(np.abs(after[name].values - before[name].values).min() > 0 for name in before if "margin" in name)


@pytest.mark.parametrize(
    ("nats", "tokens", "likelier", "margin"),
    [
        ([-4.0, -3.0], [4, 2], 1.0, np.exp(-1.0) - np.exp(-1.5)),  # a token of the longer answer is likelier
        ([-3.0, -4.0], [1, 2], 0.0, np.exp(-3.0) - np.exp(-2.0)),
        ([-2.0, -4.0], [1, 2], 0.0, 0.0),  # a tie
        ([np.nan, -4.0], [1, 2], 0.0, np.nan),
        ([-2.0, -np.inf], [1, 2], 0.0, np.exp(-2.0)),  # a broken model wins nothing
    ],
)
def test_who_wins(lm, sites, monkeypatch, nats, tokens, likelier, margin):
    plan = plan_contest([FACTS[0]], lm.tokenizer, max_tokens=64, longest=None)
    found = Likelihoods(np.array([nats] * 4), np.array([tokens] * 4))
    monkeypatch.setattr(contests, "likelihoods", lambda *_: found)
    scores = scored(lm, sites, plan, no_edit(sites))
    assert scores["ES.likelier"].values.tolist() == [likelier]
    assert scores["LS.likelier"].values.tolist() == [likelier] * 2
    np.testing.assert_allclose(scores["LS.margin"].values, [margin] * 2)


def test_facts_without_rivals_are_no_contest(lm, sites):
    plan = plan_contest([EditRecord(Cue("a", "b"), (), (), "", "x")], lm.tokenizer, max_tokens=64, longest=None)
    assert len(plan) == 0
    assert scored(lm, sites, plan, no_edit(sites)) == {}
