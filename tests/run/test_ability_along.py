"""Runs that ask for ability along the way."""

import json

import pytest

from emsedit_jax.run import cli, examine
from tests.run import tiny
from tests.run.broken_off import counted, power_cut, same_run


def ability_asked(folder):
    """Flags of a run that asks ability along the way, with a curve after every second batch."""
    asked = [f"--config.eval.ability_path={folder}", "--config.eval.ability_tasks=('sst2',)", "--config.eval.further"]
    asked += ["--config.eval.generated=0", "--config.eval.fluency=0", "--config.eval.examples=0"]
    along = ["--config.eval.glue_step=1", "--config.editor.full_curve", "--config.eval.curve_step=2"]
    return [*asked, *along, "--config.num_seq=3", "--config.dataset.n_edits=2"]


@pytest.fixture(scope="module")
def able(tmp_path_factory, quick_compiles):
    """A run that asks ability along the way; its task lies beside it."""
    folder = tmp_path_factory.mktemp("able")
    rows = [{"sentence": text, "label": m % 2} for m, text in enumerate(["bad", "good", "awful", "fine", "poor"])]
    (folder / "sst2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny.train(folder / "run", *ability_asked(folder), editor="ultraedit")
    return folder / "run"


def test_ability_is_asked_before_during_and_after(able):
    summary = tiny.read(able / "summary.json")
    for row in ("unedited", "edited"):
        found = {name: value for name, value in summary["scores"][row].items() if name.startswith("sst2.")}
        assert list(found) == ["sst2.accuracy", "sst2.f1", "sst2.mcc"]
        assert found["sst2.accuracy"] in (0, 20, 40, 60, 80, 100)
        assert summary["items"][row]["sst2.f1"] == 5
    assert [point["edits"] for point in summary["along"]["ability"]] == [2, 4]
    rows = [row["ability"] for row in tiny.rows(able) if "ability" in row]
    assert [{"edits": point["edits"]} | row for point, row in zip(summary["along"]["ability"], rows, strict=True)] == (
        summary["along"]["ability"]
    )


def test_a_curve_is_drawn_after_every_so_many_batches_and_the_last(able):
    summary = tiny.read(able / "summary.json")
    points = summary["along"]["so_far"]
    assert [point["edits"] for point in points] == [4, 6]
    assert points[-1]["ES"] == summary["scores"]["edited"]["ES"]
    assert ["so_far" in row for row in tiny.rows(able)] == [False, True, True]


def test_ability_files_are_missed_before_a_model_is_loaded(tmp_path, capsys):
    asked = [f"--config.eval.ability_path={tmp_path}", "--config.eval.further", "--config.model.name_or_path=nowhere"]
    assert tiny.call(*tiny.flags(*asked)) == 2
    assert "there is no sst2.jsonl" in capsys.readouterr().err


def test_a_run_broken_off_as_ability_is_asked_along_the_way_goes_on(able, tmp_path, monkeypatch):
    more = [*ability_asked(able.parent), "--config.checkpoint.every=1"]
    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", *more, editor="ultraedit")
    with monkeypatch.context() as patch:
        calls = counted(patch, examine, "ability", 3, power_cut)  # of the second batch
        assert tiny.call(*flags) == cli.INTERRUPTED
    calls = counted(monkeypatch, examine, "ability")
    assert tiny.call(*flags) == 0
    assert len(calls) == 2  # of that batch, and of the edited model
    same_run(tmp_path / "run", able)
