"""Files replaced together: a program that dies at any moment leaves all of them old, or all of them new."""

import os
from pathlib import Path

import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.run import lock, together, workdir
from tests.run import tiny

OLD = {"one": "old", "edits/two": "old", "kept": "kept"}
NEW = {"one": "new", "edits/two": "new", "edits/three": "new"}


class Killed(BaseException):
    """Stands for a program's death: nothing after it may run."""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(one.relative_to(folder)): one.read_text() for one in folder.rglob("*") if one.is_file()}


def replaced(folder: Path, fails: bool = False) -> None:
    with together.replacing(folder) as part:
        write(part, NEW)
        if fails:
            raise ZeroDivisionError


def dies_after(count: int, patch: pytest.MonkeyPatch) -> None:
    """Lets so many renames be made, and no other one; nor is anything cleaned up by a dead program."""
    left = [count]

    def dying(plain):
        def deed(*args, **kwargs):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return plain(*args, **kwargs)

        return deed

    for owner, name in ((os, "rename"), (os, "replace")):
        patch.setattr(owner, name, dying(getattr(owner, name)))
    patch.setattr(together.shutil, "rmtree", lambda *args, **kwargs: None)


def test_files_take_their_places_together(tmp_path):
    write(tmp_path, OLD)
    with together.replacing(tmp_path) as part:
        write(part, NEW)
        assert {name: text for name, text in content(tmp_path).items() if name in OLD} == OLD
    assert content(tmp_path) == OLD | NEW


def test_a_block_that_fails_leaves_all_as_it_was(tmp_path):
    write(tmp_path, OLD)
    with pytest.raises(ZeroDivisionError):
        replaced(tmp_path, fails=True)
    assert content(tmp_path) == OLD


@pytest.mark.parametrize("renames", range(5))
def test_a_death_leaves_all_old_or_all_new(renames, tmp_path, monkeypatch):
    write(tmp_path, OLD)
    with monkeypatch.context() as patch:
        dies_after(renames, patch)
        died = False
        try:
            replaced(tmp_path)
        except Killed:
            died = True
    assert died == (renames < 1 + len(NEW))
    together.finish(tmp_path)
    workdir.sweep(workdir.Workdir(tmp_path))
    assert content(tmp_path) == (OLD if renames == 0 else OLD | NEW)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["edits", "kept", "one"]


def test_a_first_writing_that_died_is_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        dies_after(0, patch)
        with pytest.raises(Killed):
            replaced(tmp_path)
    assert list(tmp_path.iterdir()) != []
    assert not workdir.is_taken(tmp_path)
    replaced(tmp_path)
    assert content(tmp_path) == NEW


@pytest.mark.parametrize("flags", [["--mode=undo", "--batches=9"], ["--mode=merge", "--to=new"], ["--mode=compare"]])
def test_every_folder_that_a_command_names_is_whole_before_it_is_read(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["one", "other"] if flags[0] != "--mode=undo" else ["one"]
    for name in names:
        write(tmp_path / name / workdir.WHOLE, NEW)
    tiny.call(*flags, f"--workdir={', '.join(names)}")  # whatever comes of it
    for name in names:
        assert content(tmp_path / name) == NEW


def test_what_another_program_writes_is_not_touched(tmp_path):
    (tmp_path / workdir.WHOLE).mkdir()
    write(tmp_path / workdir.WHOLE, NEW)
    with lock.held(tmp_path), pytest.raises(InputError, match="is in use by process"):
        together.finish(tmp_path)
    together.finish(tmp_path)
    assert content(tmp_path) == NEW
