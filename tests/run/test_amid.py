"""Runs broken off amid a sort of questions."""

import functools
import json
import os
import signal

import pytest

from emsedit_jax.measure import ask, likelihood, speech
from emsedit_jax.run import cli, examine, keeper, scoring
from emsedit_jax.run.checkpoint import Saved
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.resources import CompileClock
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


CUTS = [[0], [1]]


@pytest.mark.parametrize(("asked_now", "cuts", "before"), [("a", CUTS, 1), ("a", [[0, 1]], 0), ("b", CUTS, 0)])
def test_passes_over_something_else_or_cut_otherwise_are_made_anew(asked_now, cuts, before):
    """As another number of devices cuts them."""
    mark = examine.mark("reading", "a", CUTS)
    known = keeper.nothing(PhaseClock(CompileClock()))
    known.found = Saved({}, {"batches": [], "amid": {"mark": mark, "found": [[0.5]]}})
    part = examine.Part(asked_now, cuts, lambda passes: examine.Examined({}, ()))
    assert scoring.Kept(known).passes("reading", part).found == [[0.5]] * before
