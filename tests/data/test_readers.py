import json
from pathlib import Path

import pytest

from emsedit_jax.data.records import load

RECORDED = Path(__file__).parents[1] / "golden/data"


@pytest.mark.parametrize("name", [path.name for path in sorted(RECORDED.iterdir())])
def test_the_recorded_files_are_read_in_both_roles(name):
    files = sorted((RECORDED / name).glob("*.json"))
    assert len(files) == 2
    for file in files:
        rows = json.loads(file.read_text(encoding="utf-8"))
        for role in ("train", "eval"):
            records = load(name, file, role=role)
            assert [record.source for record in records] == [f"{file.name} row {row}" for row in range(len(rows))]
            compares = {cue.versus is not None for record in records for cue in (record.edit, *record.equiv)}
            assert compares == {name == "counterfact"}
