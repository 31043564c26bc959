import io

import pytest
from rich.console import Console

from emsedit_jax.run.progress import Batchwise, track


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines(steps, seconds_each, total=None, unit="edits"):
    said, clock = io.StringIO(), Clock()
    console = Console(file=said, width=200)
    with track(total or steps, "editing", unit, console=console, clock=clock) as progress:
        for step in range(steps):
            clock.now += seconds_each
            progress.advance(1, loss=1 / (step + 1))
    return said.getvalue().splitlines()


def test_away_from_a_terminal_every_tenth_is_a_line():
    said = lines(100, 1.0)
    assert len(said) == 10
    assert said[0] == "editing 10/100 edits  1.0 edits/s  1 min 30 s left  loss 0.1"
    assert said[-1] == "editing 100/100 edits  1.0 edits/s  done in 1 min 40 s  loss 0.01"


def test_slow_work_is_heard_of_and_quick_work_does_not_flood():
    assert len(lines(3, 60.0, total=100, unit="batches")) == 3
    assert "60.0 s/pass  2 min" in lines(3, 60.0, unit="passes")[0]
    assert lines(3, 60.0, unit="batches")[0] == "editing 1/3 batches  60.0 s/batch  2 min 0 s left  loss 1"
    assert len(lines(1000, 0.001)) == 1


def test_on_a_terminal_a_bar_shows_count_rate_and_metrics():
    said, clock = io.StringIO(), Clock()
    console = Console(file=said, force_terminal=True, width=120, color_system=None)
    with track(4, "scoring", "prompts", console=console, clock=clock) as progress:
        clock.now = 2.0
        progress.advance(4, ES=50.0)
    shown = said.getvalue()
    for part in ("scoring", "4/4", "prompts", "2.0 prompts/s", "ES 50"):
        assert part in shown


def test_an_error_inside_passes_through():
    with pytest.raises(ValueError, match="inner"), track(2, "x", console=Console(file=io.StringIO())):
        raise ValueError("inner")


class Counter:
    """Counts units, as a tracker."""

    def __init__(self):
        self.done = 0

    def advance(self, n: int = 1, **shown_metrics: float) -> None:
        self.done += n


def test_a_batch_is_done_with_its_passes():
    counter = Counter()
    shown, seen = Batchwise(counter), []
    for passes in (4, 3):
        shown.batch(10, 4)
        for _ in range(passes):  # one pass fewer than said must not lose units
            shown.next_pass()
            seen.append(counter.done)
        shown.end()
        seen.append(counter.done)
    assert seen == [0, 2, 5, 7, 10, 10, 12, 15, 20]


def test_the_next_batch_may_begin_before_one_is_done():
    counter = Counter()
    shown = Batchwise(counter)
    for _ in range(2):
        shown.batch(10, 2)
    shown.next_pass()
    shown.next_pass()
    assert counter.done == 5  # of the batch that began last
    shown.end()
    assert counter.done == 15
    shown.end()
    assert counter.done == 20
