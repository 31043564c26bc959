"""Folders that appear whole or not at all, and the sums that exports carry."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from emsedit_jax import disk
from emsedit_jax.errors import InputError


def told(folder: Path) -> int:
    """What sha256sum says of the folder's files."""
    return subprocess.run(["sha256sum", "-c", disk.SUMS], cwd=folder, capture_output=True, check=False).returncode


def test_sums_cover_folders_within(tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "one.jinja").write_text("{{ messages }}")
    (tmp_path / "config.json").write_text("{}")
    disk.write_sums(tmp_path)
    assert told(tmp_path) == 0
    (tmp_path / "templates" / "one.jinja").write_text("{{ message }}")
    assert told(tmp_path) != 0


def test_a_folder_is_not_made_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="where you are"), disk.new_folder(Path(".")):
        pass
    assert tmp_path.is_dir()


def test_the_folder_of_a_living_export_stays(tmp_path):
    with disk.new_folder(tmp_path / "out") as one:
        (one / "half").touch()
        with disk.new_folder(tmp_path / "out") as other:
            assert (one / "half").exists()
            (other / "whole").touch()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
        shutil.rmtree(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_a_file_no_more_is_read_than_it_may_have(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert disk.content(path, 5) == b"12345"
    with pytest.raises(OSError, match=r"longer than any such file \(4 bytes\)"):
        disk.content(path, 4)


def test_of_a_file_that_tells_no_size_no_more_is_read_either():
    assert disk.content("/proc/self/cmdline", 2**20)
    with pytest.raises(OSError, match=r"longer than any such file \(1 bytes\)"):
        disk.content("/proc/self/cmdline", 1)


def test_what_need_have_no_end_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it: opened as files are it would wait
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="no regular file, but a device or pipe"):
            disk.content(path, 2**20)
    with pytest.raises(IsADirectoryError):
        disk.content(tmp_path, 2**20)
