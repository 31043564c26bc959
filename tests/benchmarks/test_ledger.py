"""The benchmark of the ledger, at a size that takes no time."""

from benchmarks import ledger
from emsedit_jax.run.workdir import Workdir


def test_it_opens_what_it_wrote_and_copies_nothing(tmp_path):
    folder = Workdir(tmp_path)
    ledger.fill(folder, ledger.sites_of(64, 96), 5, rows=100)
    found = ledger.measure(folder, 3)
    assert found["batches"] == 5
    assert 0 < found["open_s"] < 5
    assert found["copied_mb"] < found["batch_mb"] / 10
