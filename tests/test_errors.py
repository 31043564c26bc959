import pytest

from emsedit_jax.errors import near


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("ultraedi", ["emsedit", "ultraedit"], " Did you mean 'ultraedit'?"),
        ("iter", ["iters", "itera"], " Did you mean 'iters' or 'itera'?"),
        ("zzz", ["emsedit"], ""),
        ("anything", [], ""),
    ],
)
def test_near(name, known, hint):
    assert near(name, known) == hint


def test_near_gives_no_more_than_asked_for():
    known = ["site1", "site2", "site3", "site4"]
    assert near("site", known).count("site") == 3
    assert near("site", known, count=1).count("site") == 1


def test_near_takes_names_from_anywhere():
    assert near("ridg", iter(["ridge", "solve"])) == " Did you mean 'ridge'?"
