import pytest

from emsedit_jax.run import metrics
from emsedit_jax.run.metrics import START, Metrics

ROWS = [{"batch": j, "loss": [0.1 * j], "site é": None} for j in range(4)]


@pytest.fixture
def path(tmp_path):
    kept = Metrics(tmp_path / "metrics.jsonl")
    for row in ROWS:
        kept.add(row)
    return tmp_path / "metrics.jsonl"


def test_rows_come_back_with_the_last_seal(path):
    assert metrics.read(path.read_bytes()) == (ROWS, Metrics(path).seal)


def test_a_run_that_goes_on_adds_to_the_same_chain(path):
    whole, lines = path.read_bytes(), path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    again = Metrics(path)
    for row in ROWS[2:]:
        again.add(row)
    assert path.read_bytes() == whole


def test_a_last_line_that_is_cut_off_is_no_row(path):
    assert metrics.read(path.read_bytes()[:-1])[0] == ROWS[:-1]
    assert metrics.read(b"") == ([], START)


@pytest.mark.parametrize("order", [[1, 2, 3], [0, 2, 3], [0, 2, 1, 3], [0, 0, 1, 2, 3]])
def test_rows_that_are_lost_doubled_or_elsewhere_are_told(path, order):
    lines = path.read_bytes().splitlines(keepends=True)
    with pytest.raises(ValueError, match="is not what was written"):
        metrics.read(b"".join(lines[j] for j in order))


@pytest.mark.parametrize(("old", "new"), [(b'"batch": 3', b'"batch": 2'), (b"{", b"(")])
def test_what_was_damaged_stays_so_when_a_run_goes_on(path, old, new):
    *before, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*before, last.replace(old, new)]))
    Metrics(path).add({"batch": 4})
    with pytest.raises(ValueError, match="line 4 is not what was written"):
        metrics.read(path.read_bytes())
