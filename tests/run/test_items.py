import json
import math

import numpy as np
import pytest

from emsedit_jax.measure.scores import Score
from emsedit_jax.run import items, storing
from emsedit_jax.run.workdir import Workdir
from tests.refusals import refused

GOOD = {"items": ["mine.json row 0", "mine.json row 1"], "values": [0.5, 1]}


def score(values):
    return Score(np.array(values), tuple(f"row {m}" for m in range(len(values))))


def test_what_is_written_is_read_again_bit_by_bit(tmp_path):
    rng, path = np.random.default_rng(0), Workdir(tmp_path).scores
    named = ("ES", "LS.kl", "perplexity")
    values = [rng.random(50), 10.0 ** rng.integers(-300, 300, 50) * rng.random(50), np.array([1 / 3, 5e-324, -0.0])]
    unedited = {name: score(each) for name, each in zip(named, values, strict=True)}
    pairs = rng.integers(-1, 2, size=(7, 2)).astype(np.float64)
    edited = {"rte.f1": score(pairs), "GS": score(np.zeros(0)), "rte.mcc": score(np.zeros((0, 2)))}
    items.write(path, {"unedited": unedited, "edited": edited})
    assert path == tmp_path / "scores.json"
    found = items.read(path)
    assert {of: list(named) for of, named in found.items()} == {"unedited": list(named), "edited": [*edited]}
    for of, wanted in (("unedited", unedited), ("edited", edited)):
        for name, one in wanted.items():
            assert found[of][name].values.tobytes() == one.values.tobytes()
            assert found[of][name].values.shape == one.values.shape
            assert found[of][name].items == one.items


def test_not_a_number_is_null_in_the_file(tmp_path):
    path = tmp_path / "scores.json"
    items.write(path, {"edited": {"ES": score([0.25, math.nan]), "rte.f1": score([[1.0, math.nan], [0.0, 1.0]])}})
    written = json.loads(path.read_text())["edited"]
    assert written["ES"] == {"values": [0.25, None], "items": ["row 0", "row 1"]}
    assert written["rte.f1"]["values"] == [[1.0, None], [0.0, 1.0]]
    found = items.read(path)["edited"]
    np.testing.assert_array_equal(found["ES"].values, [0.25, math.nan])
    np.testing.assert_array_equal(found["rte.f1"].values, [[1.0, math.nan], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read"),
        ('{"edited": {"ES"', "cannot read"),
        ("[" * 100_000, "cannot read"),
        ("[]", "is damaged"),
        ('{"edited": 3}', "edited is no object"),
        ('{"edited": {"ES": [0.5]}}', "edited.ES is no object"),
        ('{"edited": {"EZ": {}}}', "there is no score 'EZ'"),
        ('{"edited": {"ES.x": {}}}', "there is no score 'ES.x'"),
        (GOOD | {"items": "ab"}, "edited.ES.items must be a list of texts"),
        (GOOD | {"items": ["a", 1]}, "edited.ES.items must be a list of texts"),
        ({"items": ["a", "b"]}, "edited.ES.values must be a list of numbers"),
        (GOOD | {"values": [0.5, "1"]}, "edited.ES.values must be a list of numbers"),
        (GOOD | {"values": [0.5, True]}, "edited.ES.values must be a list of numbers"),
        (GOOD | {"values": [0.5, [0.5, 1.0]]}, "edited.ES.values must be a list of numbers"),
        (GOOD | {"values": [[0.5, 1.0], [1.0, 1.0]]}, "edited.ES.values must be a list of numbers"),
        ({"rte.f1": GOOD | {"values": [[0.5], [1.0]]}}, "edited.rte.f1.values must be a list of pairs"),
        ({"rte.f1": GOOD}, "edited.rte.f1.values must be a list of pairs"),
        (GOOD | {"values": [0.5]}, "edited.ES has 2 items and 1 values"),
    ],
)
def test_a_damaged_or_foreign_file(tmp_path, text, said):
    path = tmp_path / "scores.json"
    named = text if "rte.f1" in text else {"ES": text}
    if isinstance(text, str) and not text.endswith("}"):
        path.write_text(text)
    else:
        storing.write_json(path, json.loads(text) if isinstance(text, str) else {"edited": named})
    with refused(str(path), said, "another folder"):
        items.read(path)


def test_a_missing_file(tmp_path):
    with refused(str(tmp_path / "scores.json"), "no such file"):
        items.read(tmp_path / "scores.json")


def test_a_summary_is_in_the_units_of_the_scores():
    rng = np.random.default_rng(1)
    shares, nats = score(rng.random(200)), score(rng.normal(3.0, 1.0, 200))
    found = items.summarised({"ES": shares, "perplexity": nats, "LS.kl": nats})
    assert found["totals"]["ES"] == pytest.approx(100 * shares.values.mean())
    assert found["totals"]["perplexity"] == pytest.approx(math.exp(nats.values.mean()))
    assert found["items"] == {"ES": 200, "perplexity": 200, "LS.kl": 200}
    half, spread = 1.96 / math.sqrt(200), 100 * float(shares.values.std())
    center = found["totals"]["ES"]
    assert found["intervals"]["ES"] == pytest.approx([center - half * spread, center + half * spread], abs=0.6)
    low, high = found["intervals"]["LS.kl"]
    assert [low, high] == pytest.approx([nats.values.mean() - half, nats.values.mean() + half], abs=0.03)
    assert found["intervals"]["perplexity"] == pytest.approx([math.exp(low), math.exp(high)])
    assert items.summarised({"ES": shares}) == items.summarised({"ES": shares})


def test_scores_of_nothing_have_no_interval():
    pairs = score([[1.0, math.nan], [0.0, 1.0]])
    found = items.summarised(
        {"ES": score([0.5, math.nan]), "GS": score(np.zeros(0)), "rte.f1": pairs, "rte.mcc": pairs}
    )
    assert np.isnan([*found["totals"].values()]).all()
    assert np.isnan([*found["intervals"].values()]).all()
    assert found["items"] == {"ES": 2, "GS": 0, "rte.f1": 2, "rte.mcc": 2}


def test_prompts_of_one_fact_are_drawn_together():
    names = [f"counterfact.json row {row} #{m}" for row in range(2) for m in range(10)]
    neighbours = Score(np.repeat([0.0, 1.0], 10), tuple(names))
    found = items.summarised({"LS": neighbours, "GS": score(np.repeat([0.0, 1.0], 10))})
    assert found["totals"] == {"LS": 50, "GS": 50}
    assert found["intervals"]["LS"] == [0, 100] == items.summarised({"LS": score([0.0, 1.0])})["intervals"]["LS"]
    assert 20 < found["intervals"]["GS"][0] < found["intervals"]["GS"][1] < 80
    assert found["items"] == {"LS": 20, "GS": 20}


def test_further_questions_and_windows_are_told_apart_by_their_names():
    asked = ("mquake.json row 0 #multi_hop 0", "mquake.json row 0 #multi_hop 1", "mquake.json row 1 #multi_hop 0")
    windows = tuple(f"window {m}" for m in range(3))
    values = np.array([1.0, 1.0, 0.0])
    assert items.interval("asks.multi_hop", Score(values, asked)) == (0.0, 100.0)
    drawn = {items.interval("LS.kl", Score(values, names)) for names in (windows, ("a", "b", "c"))}
    assert len(drawn) == 1
