"""How a comparison is drawn."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from emsedit_jax.run import compare_plot
from tests.run import comparing
from tests.run.comparing import SWING, WEAK, compared, make, score


@pytest.fixture
def two(tmp_path):
    """A weak run and a strong one."""
    return comparing.two(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in turn."""
    found, save = [], Figure.savefig

    def kept(figure, *args, **options):
        found.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return found


def test_names_that_matplotlib_would_obey(tmp_path, drawn):
    runs = [make(tmp_path / name, WEAK) for name in ("_hidden", "$\\nosuch$", "$x_1$ and $y$", "a\x07")]
    compare_plot.plot(tmp_path / "compare.png", compared(*runs))
    (figure,) = drawn
    (legend,) = figure.legends
    shown = [text for text in legend.get_texts() if text.get_visible()]
    wanted = ["unedited", " _hidden", "$\\nosuch$", "$x_1$ and $y$", "a"]
    assert len(shown) == len(wanted)  # matplotlib leaves out what begins with "_"
    for text, letters in zip(shown, wanted, strict=True):  # a formula is of another width than its letters
        plain = figure.text(0, 0, letters, fontproperties=text.get_fontproperties(), parse_math=False)
        assert text.get_window_extent().width == pytest.approx(plain.get_window_extent().width, abs=1), letters


def test_the_picture_has_a_colour_for_each_model(two, tmp_path):
    compare_plot.plot(tmp_path / "compare.png", compared(*two))
    pixels = (imread(tmp_path / "compare.png")[..., :3] * 255).round().astype(int)
    for color in compare_plot.COLORS[:2]:
        wanted = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
        assert np.all(pixels == wanted, axis=-1).sum() > 100
    unused = [int(compare_plot.COLORS[2][place : place + 2], 16) for place in (1, 3, 5)]
    assert not np.all(pixels == unused, axis=-1).any()
    assert [found.name for found in tmp_path.glob("*.png")] == ["compare.png"]


def test_many_scores_go_into_two_columns(tmp_path, two):
    looks = ("first", "exact", "kl", "margin")
    many = {f"{kind}.{look}": score(SWING) for kind in ("ES", "GS", "LS") for look in looks}
    runs = [make(tmp_path / name, WEAK | many | {"rte.accuracy": score(math.nan)}) for name in "abc"]
    compare_plot.plot(tmp_path / "few.png", compared(*two))
    compare_plot.plot(tmp_path / "many.png", compared(*runs))
    widths = [imread(tmp_path / name).shape[1] for name in ("few.png", "many.png")]
    assert widths == [round(140 * compare_plot.WIDTH), round(280 * compare_plot.WIDTH)]
