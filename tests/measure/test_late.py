import pytest

from emsedit_jax.measure.late import one_late


def test_each_value_comes_when_the_next_one_has_begun():
    events = []

    def begun():
        for number in range(3):
            events.append(f"begun {number}")
            yield number

    for number in one_late(begun()):
        events.append(f"read {number}")
    assert events == ["begun 0", "begun 1", "read 0", "begun 2", "read 1", "read 2"]


def test_where_one_fails_the_one_before_is_read_first():
    read = []

    def begun():
        yield "good"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        read.extend(one_late(begun()))
    assert read == ["good"]


def test_nothing_and_one_value():
    assert list(one_late([])) == []
    assert list(one_late([7])) == [7]
