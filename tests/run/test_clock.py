from types import SimpleNamespace

import pytest

from emsedit_jax.run import clock
from emsedit_jax.run.resources import CompileClock


class Time:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=time.monotonic))
    return time


def test_each_phase_has_its_seconds_without_compilation(time):
    compiling = CompileClock()  # never opened: its seconds are set by hand
    phases = clock.PhaseClock(compiling)
    time.now += 3  # outside any phase
    compiling.seconds = 2.5
    with phases.phase("train"):
        time.now += 10
        compiling.seconds += 4
    with phases.phase("score"):
        time.now += 1.25
    with phases.phase("train"):
        time.now += 1
    assert phases.seconds == {"train": 7.0, "edit": 0.0, "score": 1.25}
    assert phases.summary() == {"train": 7.0, "edit": 0.0, "score": 1.25, "compile": 6.5, "total": 15.25}


def test_a_phase_has_the_peaks_that_rose_in_it(monkeypatch):
    now = {"host": 100.0}
    monkeypatch.setattr(clock.resources, "peaks_mb", lambda: dict(now))
    phases = clock.PhaseClock(CompileClock())
    now["host"] = 110.0  # outside any phase
    with phases.phase("score"):
        pass
    with phases.phase("train"):
        now |= {"host": 200.0, "device": 50.0}
    with phases.phase("edit"):
        now["device"] = 70.0
    with phases.phase("train"):
        now["host"] = 300.0
    assert phases.peaks == {"train": {"host": 300.0, "device": 50.0}, "edit": {"device": 70.0}}


def test_seconds_are_rounded_to_milliseconds(time):
    phases = clock.PhaseClock(CompileClock())
    with phases.phase("edit"):
        time.now += 0.12349
    assert phases.summary()["edit"] == 0.123


def test_an_unknown_phase_is_a_defect(time):
    with pytest.raises(KeyError), clock.PhaseClock(CompileClock()).phase("sleep"):
        pass
