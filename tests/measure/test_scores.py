import numpy as np
import pytest

from emsedit_jax.measure import scores
from emsedit_jax.measure.scores import Score


@pytest.mark.parametrize(
    ("name", "values", "total", "unit", "better"),
    [
        ("ES", [1.0, 0.5, 0.0, 0.5], 50.0, "%", 1),
        ("GS.exact", [1.0, 0.0, 0.0, 0.0], 25.0, "%", 1),
        ("LS.kl", [0.5, 1.5], 1.0, "nats", -1),
        ("ES.margin", [0.5, -0.25], 12.5, "points", 1),
        ("asks.Subject_Aliasing", [1.0, 0.0], 50.0, "%", 1),
        ("fluency", [4.0, 6.0], 5.0, "bits", 0),
        ("perplexity", [np.log(4), np.log(9)], 6.0, "", -1),  # of as many tokens each: the geometric mean
    ],
)
def test_totals(name, values, total, unit, better):
    found = scores.measure(name)
    assert (found.unit, found.better) == (unit, better)
    items = tuple(str(m) for m in range(len(values)))
    assert scores.totals({name: Score(np.array(values), items)})[name] == pytest.approx(total)


def test_words_name_the_prompts_and_the_criterion():
    assert scores.measure("LS.same").words == "unrelated facts: the likeliest token is the unedited model's"
    assert scores.measure("asks.Logical_Generalization").words == "Logical Generalization"


@pytest.mark.parametrize("name", ["XS", "ES.nothing", "flow", "rte.nothing"])
def test_other_names_are_no_scores(name):
    with pytest.raises(KeyError):
        scores.measure(name)


def test_no_items_give_no_number():
    assert np.isnan(scores.measure("ES").total(np.zeros(0)))
