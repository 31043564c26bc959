import math

import pytest

from emsedit_jax.measure.said import contained, exact, ngram_entropy


@pytest.mark.parametrize(
    ("said", "answers", "is_exact", "is_contained"),
    [
        ("Paris", ["Paris"], True, True),
        (" the  paris. ", ["Paris"], True, True),
        ("It is Paris, of course", ["Paris"], False, True),
        ("Parisian", ["Paris"], False, False),
        ("London", ["Paris", "London"], True, True),
        ("", ["Paris"], False, False),
        ("Paris", [""], False, False),
        ("", [""], False, False),
        ("\uff30aris", ["Paris"], True, True),  # a full-width P
        ("Strasse", ["Straße"], True, True),
        ("the capital is New  York City", ["New York"], False, True),
        ("New Yorker", ["New York"], False, False),
        ("The Who", ["Who"], True, True),
        ("首都は東京です", ["東京"], False, True),
        ("首都は東京です", ["大阪"], False, False),
        ("פריז", ["פריז"], True, True),
        ("the", ["The"], True, True),  # nothing but an article
    ],
)
def test_matches(said, answers, is_exact, is_contained):
    assert (exact(said, answers), contained(said, answers)) == (is_exact, is_contained)


def test_entropy_by_hand():
    # 2-grams ab bc ca ab: 1/2, 1/4, 1/4; 3-grams abc bca cab: a third each
    assert ngram_entropy("a b c a b") == pytest.approx((2 / 3 * 1.5 + 4 / 3 * math.log2(3)) / 2)


def test_text_that_repeats_itself_has_no_entropy_and_other_text_has_more():
    assert ngram_entropy("no no no no no no") == 0
    assert ngram_entropy("one two") == 0
    assert ngram_entropy("") == 0
    assert ngram_entropy("to be or not to be") > ngram_entropy("to be to be to be") > 0
