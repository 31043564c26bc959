"""Runs broken off amid a sort of questions."""

import functools
import json
import os
import signal

import pytest

from emsedit_jax.measure import ask, likelihood, speech
from emsedit_jax.run import cli, keeper
from tests.run import tiny
from tests.run.broken_off import counted, power_cut, same_run

SORTS = {  # what makes a pass of a sort: where it stands, its name, whether the next pass begins before it is read
    "spoken and flowing": (speech.generate, "continuations", False),
    "reading": (ask, "read_tokens", True),
    "ability": (likelihood, "read_tokens", True),
    "unrelated": (ask, "_drift", True),
}
terminated = functools.partial(os.kill, os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module", autouse=True)
def small_passes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "ROWS", 2)
        patch.setattr(keeper, "WORTH_S", 0.0)
        yield patch


@pytest.fixture(scope="module")
def asked(tmp_path_factory, quick_compiles, small_passes):
    """A run that was not broken off, how many passes each sort took, and its flags."""
    folder = tmp_path_factory.mktemp("amid")
    rows = [{"sentence": text, "label": m % 2} for m, text in enumerate(["bad", "good", "awful", "fine", "poor"])]
    (folder / "sst2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text("The sea is wide and the land is long. " * 40)
    flags = [f"--config.eval.ability_path={folder}", "--config.eval.ability_tasks=('sst2',)", "--config.eval.further"]
    flags += [f"--config.eval.text_path={folder / 'text.txt'}", "--config.eval.batch_tokens=1"]
    flags += ["--config.eval.generated=3", "--config.eval.fluency=4", "--config.eval.fluency_tokens=8"]
    with pytest.MonkeyPatch.context() as patch:
        calls = {sort: counted(patch, *made[:2]) for sort, made in SORTS.items()}
        tiny.train(folder / "run", *flags, editor="ultraedit")
    counts = {sort: len(found) for sort, found in calls.items()}
    assert min(counts.values()) > 3
    return folder / "run", counts, flags


@pytest.mark.parametrize("then", [power_cut, terminated], ids=["power cut", "SIGTERM"])
@pytest.mark.parametrize("sort", SORTS)
def test_a_sort_of_questions_goes_on_behind_its_last_pass(asked, tmp_path, monkeypatch, sort, then):
    folder, counts, more = asked
    module, name, late = SORTS[sort]
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", *more, editor="ultraedit")
    calls = counted(monkeypatch, module, name, 3, then)
    assert tiny.call(*flags) == (cli.INTERRUPTED if then is power_cut else cli.PREEMPTED)
    assert len(calls) == 3
    assert tiny.call(*flags) == 0
    again = (then is power_cut) + late  # a pass that was not made, and one that was not read
    assert len(calls) == counts[sort] + again
    same_run(tmp_path / "run", folder)


def test_passes_over_another_text_are_made_anew(asked, tmp_path, monkeypatch):
    _, counts, more = asked
    texts = [f"--config.eval.text_path={tmp_path / 'text.txt'}"]
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", *more, *texts, editor="ultraedit")
    (tmp_path / "text.txt").write_text("The land is wide and the sea is long. " * 40)
    calls = counted(monkeypatch, *SORTS["reading"][:2], 3, terminated)
    assert tiny.call(*flags) == cli.PREEMPTED
    (tmp_path / "text.txt").write_text("The sea is wide and the land is long. " * 40)
    assert tiny.call(*flags) == 0
    assert len(calls) == 3 + counts["reading"]
    assert tiny.read(tmp_path / "run/summary.json")["scores"] == tiny.read(asked[0] / "summary.json")["scores"]
