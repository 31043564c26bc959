"""The search for inputs by the branches that they reach, for a few thousand of one kind."""

import pytest

from tests.run import tiny


@pytest.mark.parametrize("kind", ["ledger.jsonl", "edits.safetensors"])
def test_nothing_but_refusals_by_name_is_found(kind):
    pytest.importorskip("atheris", reason="atheris is the optional extra 'fuzz'")
    done = tiny.python("-m", "tests.faults.coverage_guided", "--inputs=2000", kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{kind}: 2000 inputs in ")
