"""Folders that appear whole or not at all, and the sums that exports carry."""

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
