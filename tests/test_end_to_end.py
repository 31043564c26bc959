"""The command itself, each run in a process of its own: exit codes, streams, and what one process leaves to another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.run import tiny


def launch(cache, *args):
    environment = os.environ | {"EMSEDIT_CACHE": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    command = [sys.executable, str(tiny.ROOT / "launch.py"), *args]
    return subprocess.run(
        command, cwd=cache.parent, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def first(place):
    """A run with nothing in the cache: what it said, and its folder."""
    return run(place, "first")


def run(place, name):
    folder = place / name
    done = launch(place / "cache", *tiny.flags(f"--workdir={folder}", "--config.compile_cache"))
    assert done.returncode == 0, done.stderr
    return done, folder


def test_a_run_says_what_it_does_and_shows_its_scores(first):
    done, folder = first
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["devices", "model", "data", "sites", "workdir"]
    assert any("unedited" in line for line in lines)
    assert any("after editing" in line for line in lines)
    assert lines[-1] == f"files in {folder}"
    for line in done.stderr.splitlines():  # progress, and no library's chatter
        assert line.startswith(("scoring ", "asking ", "training ", "editing "))


def test_the_next_process_takes_its_programs_from_the_cache_and_gives_the_same_bits(place, first):
    assert list((place / "cache" / "xla").iterdir())
    _, second = run(place, "second")
    mine, theirs = (tiny.read(folder / "summary.json") for folder in (first[1], second))
    assert mine["compiled"]["from_cache"] == 0
    assert theirs["compiled"]["from_cache"] > 0
    for name in ("scores", "edits", "digests", "examples"):
        assert mine[name] == theirs[name]
    assert tiny.rows(first[1]) == tiny.rows(second)
    assert mine["scores"]["edited"]["ES"] > mine["scores"]["unedited"]["ES"]
    assert set(load_file(second / "edits.safetensors")) == set(tiny.SITES)


def test_another_process_scores_the_saved_edits_the_same(place, first):
    done = launch(place / "cache", "--mode=eval", f"--workdir={first[1]}")
    assert done.returncode == 0, done.stderr
    trained, again = (tiny.read(first[1] / name) for name in ("summary.json", "eval.json"))
    assert again["scores"] == trained["scores"]
    assert again["digests"] == trained["digests"]
    assert "after editing" in done.stdout


def test_a_bad_row_is_one_line_and_exit_code_2(place):
    row = json.loads((tiny.DATA / "zsre_eval.json").read_text())[0]
    del row["rephrase"]
    file = place / "mine.json"
    file.write_text(json.dumps([row]))
    done = launch(place / "cache", *tiny.flags(f"--config.dataset.valid_path={file}", f"--workdir={place / 'bad'}"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {file}: 1 bad row (counting from 0): row 0: field 'rephrase' is missing")
    assert done.stderr.count("\n") == 1
    assert not (place / "bad").exists()
