"""What is written is on the disk before it takes its place, and its name after that."""

import os
import stat
from pathlib import Path

import pytest

from emsedit_jax.run import rows, storing, together
from tests.refusals import refused


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


def test_what_is_too_long_or_need_have_no_end_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    storing.write_json(path, {"a": 1})
    assert storing.read_json(path, "") == {"a": 1}
    monkeypatch.setattr(storing, "MOST_BYTES", path.stat().st_size - 1)
    with refused(f"cannot read {path}: it is longer than any such file", "name another"):
        storing.read_json(path, "name another")
    with refused("cannot read /dev/zero: it is no regular file, but a device or pipe; name another."):
        storing.read_json(Path("/dev/zero"), "name another")
