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
        ("서울", ["서울"], True, True),
        ("수도는 서울입니다.", ["서울"], False, True),  # a particle follows the word
        ("수도는 서울입니다.", ["부산"], False, False),
        ("", ["."], False, False),
        ("Paris.", ["..."], False, False),
        ("❤️", ["☀️"], False, False),
        ("❤️ Paris", ["Paris"], True, True),
    ],
)
def test_matches(said, answers, is_exact, is_contained):
    assert (exact(said, answers), contained(said, answers)) == (is_exact, is_contained)


@pytest.mark.parametrize(
    ("said", "answer", "is_exact", "is_contained"),
    [
        ("€", "€", True, True),
        ("It is the € sign", "€", False, True),
        ("€", "$", False, False),
        ("+", "+", True, True),
        (" +\n", "+", True, True),
        ("The operator is '+'.", "+", False, True),
        ("++", "+", False, False),
        ("1+1", "+", False, False),
        ("+", "-", False, False),
        ("+", "plus", False, False),
        ("a ^ b", "^", False, True),
        ("is + - here", "+ -", False, True),
        ("😀!", "😀", False, True),
        ("[]", "[]", True, True),
        ("C", "C++", False, False),
        ("C++", "C", False, False),
        ("C++", "c++", True, True),
        ("It is C++.", "C++", False, True),
        ("It is C++.", "C", False, False),
        ("C#", "C", False, False),
        ("C#, of course", "C#", False, True),
        ("Canal+", "Canal", False, False),
        ("A+", "a+", True, True),
        ("#Paris", "Paris", True, True),  # Markdown and hashtags
        ("**Paris**", "Paris", True, True),
        ("10", "-10", False, False),
        ("-10", "10", False, False),
        ("-10", "-10", True, True),
        ("\u221210 °C", "-10", False, True),
        ("At (\u201310)", "-10", False, True),
        ("**-10**", "-10", True, True),
        ("-$5", "-$5", True, True),
        ("-$5", "$5", False, False),
        ("1990-1995", "1995", False, True),  # a dash, ...
        ("1990 - 1995", "1995", False, True),
        ("Boeing-747", "747", False, True),
        ("Boeing-747", "Boeing 747", True, True),  # ... a hyphen
        ("New-York", "New York", True, True),
        ("$5", "5", False, False),
        ("It costs $5.", "$5", False, True),
        ("€10", "£10", False, False),
    ],
)
def test_symbols_that_tell_words_apart(said, answer, is_exact, is_contained):
    assert (exact(said, [answer]), contained(said, [answer])) == (is_exact, is_contained)


def test_entropy_by_hand():
    # 2-grams ab bc ca ab: 1/2, 1/4, 1/4; 3-grams abc bca cab: a third each
    assert ngram_entropy("a b c a b") == pytest.approx((2 / 3 * 1.5 + 4 / 3 * math.log2(3)) / 2)


def test_text_that_repeats_itself_has_no_entropy_and_other_text_has_more():
    assert ngram_entropy("no no no no no no") == 0
    assert ngram_entropy("one two") == 0
    assert ngram_entropy("") == 0
    assert ngram_entropy("to be or not to be") > ngram_entropy("to be to be to be") > 0
