import json

import jax
import numpy as np
import pytest

from emsedit_jax.data.ability import plan_ability
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure import ability as abilities
from emsedit_jax.measure.ability import NO_ANSWER, ability, answers
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.likelihood import Likelihoods
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.scores import totals

LABELS = {"sst2": [1, 0, 1, 1], "mmlu": [3, 0, 2]}


@pytest.fixture(scope="module")
def plan(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ability")
    choices = ["one", "two", "three", "four"]
    rows = {
        "sst2": [{"sentence": f"It is number {m}", "label": label} for m, label in enumerate(LABELS["sst2"])],
        "mmlu": [{"question": f"{m}?", "choices": choices, "answer": label} for m, label in enumerate(LABELS["mmlu"])],
    }
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return plan_ability(folder, lm.tokenizer, max_tokens=128, longest=None, tasks=["sst2", "mmlu"])


def scored(lm, sites, plan, deltas):
    prefixes = PrefixStore(lm.config, sites, lm.params, 64)
    return ability(Edited(lm.config, sites, lm.params, deltas, prefixes), plan, "ability")


def saying(plan, monkeypatch, **words):
    """A model to which these words are the likeliest, a token, though not as a whole."""
    per_token = np.full(plan.candidates.tokens_cx.shape, -3.0)
    for name, said in words.items():
        for m, word in enumerate(said):
            per_token[plan.tasks[name].start + m, word] = -2.0
    tokens = np.where(per_token > -3, 4, 1)
    found = Likelihoods(per_token * tokens, tokens)
    monkeypatch.setattr(abilities, "likelihoods", lambda *_: found)


def test_the_likeliest_word_a_token_is_the_answer(lm, sites, plan):
    found = scored(lm, sites, plan, no_edit(sites))
    assert list(found) == [f"{name}.{metric}" for name in LABELS for metric in ("accuracy", "f1", "mcc")]
    for name, words in (("sst2", ("negative", "positive")), ("mmlu", "ABCD")):
        task = plan.tasks[name]
        for m in range(len(task.labels)):
            sequence = plan.candidates.questions.items[plan.candidates.sequence_cx[task.start + m, 0]]
            prompt = list(sequence.tokens[: sequence.prompt_len])
            means = [alone(lm, prompt, word) for word in words]
            assert found[f"{name}.f1"].values[m].tolist() == [LABELS[name][m], int(np.argmax(means))]


def alone(lm, prompt, word):
    """Mean log-probability of the word's tokens behind the prompt, from the whole model's logits."""
    said = lm.tokenizer([" " + word], add_special_tokens=False)["input_ids"][0]
    tokens = np.array([[*prompt, *said, *[0] * (8 - len(said))]])
    logits_tV = np.asarray(lm.logits(tokens, np.ones_like(tokens))[0], np.float64)[len(prompt) - 1 :]
    logprob_tV = np.asarray(jax.nn.log_softmax(logits_tV))
    return np.mean([row[token] for row, token in zip(logprob_tV, said, strict=False)])


def test_a_good_model_gets_it_all_and_a_wrong_one_little(lm, sites, plan, monkeypatch):
    saying(plan, monkeypatch, **LABELS)
    found = scored(lm, sites, plan, no_edit(sites))
    assert totals(found) == {
        f"{name}.{metric}": best for name in LABELS for metric, best in (("accuracy", 100), ("f1", 100), ("mcc", 1))
    }
    saying(plan, monkeypatch, sst2=[0, 1, 0, 0], mmlu=[0, 1, 1])
    found = totals(scored(lm, sites, plan, no_edit(sites)))
    assert {found[f"{name}.{metric}"] for name in LABELS for metric in ("accuracy", "f1")} == {0}
    assert found["sst2.mcc"] == -1
    assert found["mmlu.mcc"] < 0


def test_scores_come_item_by_item(lm, sites, plan, monkeypatch):
    saying(plan, monkeypatch, sst2=[1, 0, 0, 1], mmlu=[3, 3, 3])
    found = scored(lm, sites, plan, no_edit(sites))
    assert found["sst2.accuracy"].values.tolist() == [1, 1, 0, 1]
    assert found["sst2.mcc"].values.tolist() == [[1, 1], [0, 0], [1, 0], [1, 1]]
    assert found["mmlu.f1"].values.tolist() == [[3, 3], [0, 3], [2, 3]]
    assert found["mmlu.accuracy"].items == tuple(f"mmlu.jsonl row {m}" for m in range(3))
    # sst2: of label 0 2 * 1 / (1 + 2), of label 1 2 * 2 / (3 + 2); (1 * 2 - 1 * 0) / sqrt(1 * 2 * 3 * 2)
    assert totals(found)["sst2.f1"] == pytest.approx(100 * (2 / 3 + 3 * 4 / 5) / 4)
    assert totals(found)["sst2.mcc"] == pytest.approx(2 / np.sqrt(12))


@pytest.mark.parametrize(
    ("per_token", "answer"),
    [
        ([-2.0, -1.0, -3.0], 1),
        ([-1.0, -1.0, -3.0], NO_ANSWER),
        ([-1.0, -3.0, -3.0], 0),
        ([-1.0, np.nan, -3.0], NO_ANSWER),
        ([-1.0, -np.inf, -3.0], NO_ANSWER),
        ([-1.0, np.inf, -3.0], NO_ANSWER),
    ],
)
def test_ties_and_what_is_not_finite_are_no_answer(per_token, answer):
    assert answers(np.array([per_token, [-5.0, -4.0, -3.0]])).tolist() == [answer, 2]


def test_a_broken_model_is_always_wrong(lm, sites, plan):
    broken = tuple(delta + np.nan for delta in no_edit(sites))
    found = scored(lm, sites, plan, broken)
    assert {totals(found)[f"{name}.{metric}"] for name in LABELS for metric in ("accuracy", "f1", "mcc")} == {0}
