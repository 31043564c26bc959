"""The benchmark of growth, on a tiny model: what it looks at, and that stored prefixes are counted."""

import pytest

from benchmarks import growth
from emsedit_jax.run.prepare import prepare
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["quick_compiles"]


def prepared(*more):
    return prepare(tiny.command("--config.num_seq=4", *more, editor="ultraedit").config, training=False)


def test_it_looks_at_the_marks_that_there_are_edits_for(quick_compiles, capsys):
    found = growth.grow(prepared(), marks=(8, 16, 4000))
    assert [mark["edits"] for mark in found] == [8, 16]
    assert all(mark["seconds_an_edit"] > 0 and mark["rss_mb"] > 100 for mark in found)
    scoring = [mark["scoring"] for mark in found]
    assert [one["first_sight_hits"] for one in scoring] == [0, 0]
    assert 0 < scoring[0]["again_hits"] < scoring[1]["again_hits"]
    assert "'edits': 16" in capsys.readouterr().err


def test_without_room_nothing_is_found_again(quick_compiles):
    (mark,) = growth.grow(prepared("--config.eval.prefix_store_mb=0"), marks=(8,))
    assert mark["scoring"]["again_hits"] == 0


@pytest.mark.parametrize("words", ["seconds an edit", "prefix_store_mb"])
def test_help_says_what_it_does(words, capsys):
    with pytest.raises(SystemExit, match="0"):
        growth.main(["growth", "--help"])
    assert words in capsys.readouterr().out
