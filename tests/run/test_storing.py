"""What is written is on the disk before it takes its place, and its name after that."""

import os
import stat

import pytest

from emsedit_jax.run import rows, storing, together


@pytest.fixture
def synced(monkeypatch):
    """Of every fsync whether it is of a folder, and what `there` says then."""
    original, seen, there = os.fsync, [], []

    def noted(number):
        kind = "folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file"
        seen.append((kind, there[0]() if there else None))
        original(number)

    monkeypatch.setattr(os, "fsync", noted)
    return seen, there


def test_a_file(tmp_path, synced):
    seen, there = synced
    there.append((tmp_path / "one.json").exists)
    storing.write_json(tmp_path / "one.json", {"a": 1})
    assert seen == [("file", False), ("folder", True)]


def test_files_together(tmp_path, synced):
    seen, there = synced
    there.append(lambda: ((tmp_path / together.WHOLE).exists(), (tmp_path / "in" / "two").exists()))
    with together.replacing(tmp_path) as part:
        (part / "in").mkdir()
        for name in ("one", "in/two"):
            (part / name).write_text(name)
    before = [("file", (False, False)), ("folder", (False, False))] * 2  # in the inner folder, then in the outer one
    assert seen == [*before, ("folder", (True, False)), *[("folder", (True, True))] * 2]


def test_rows(tmp_path, synced):
    storing.append_jsonl(tmp_path / "metrics.jsonl", {"a": 1})
    seen, _ = synced
    assert not seen
    assert rows.settled(tmp_path / "metrics.jsonl") == len('{"a": 1}\n')
    assert [kind for kind, _ in seen] == ["file", "folder"]
    assert rows.settled(tmp_path / "missing.jsonl") == 0
