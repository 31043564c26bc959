"""Timing in turns: the order of the calls, what is counted, and ratios of the same round."""

import numpy as np
import pytest

from benchmarks import peaks, timing


@pytest.fixture
def called():
    return []


@pytest.fixture
def calls(called):
    return {name: lambda name=name: called.append(name) for name in ("one", "other")}


def test_calls_take_turns_and_the_first_round_does_not_count(calls, called):
    seconds = timing.in_turns(calls, 3)
    assert called == ["one", "other"] * 4
    assert {name: len(taken) for name, taken in seconds.items()} == {"one": 3, "other": 3}


def test_what_is_warm_is_counted_from_the_first_round_on(calls, called):
    seconds = timing.in_turns(calls, 2, warm=True)
    assert called == ["one", "other"] * 2
    assert len(seconds["one"]) == 2


def test_a_ratio_is_the_median_of_the_rounds_own():
    found = timing.ratio({"slow": [2.0, 8.0, 9.0], "fast": [1.0, 2.0, 1.0]}, "slow", "fast")
    assert found == {"median": 4.0, "lower_quartile": 3.0, "upper_quartile": 6.5}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_product_is_one_of_its_dtype(dtype):
    multiply, flop = timing.product(8, dtype)
    assert multiply().dtype == dtype
    assert flop == 2 * 8**3
    assert np.std(np.asarray(multiply(), np.float32)) > 1


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("TPU v5 lite", 197), ("TPU v5", 459)],
)
def test_published_peaks_are_found_by_the_devices_own_names(kind, tflops):
    found = peaks.peak(kind)
    assert found is not None
    assert found.bfloat16 == tflops


def test_others_have_no_published_peak():
    assert peaks.peak("cpu") is None


def test_longer_names_come_before_those_that_they_begin_with():
    names = list(peaks.PEAKS)
    for place, name in enumerate(names):
        assert not any(later.startswith(name) for later in names[place + 1 :])
