import json

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.lm import model
from emsedit_jax.run.prepare import prepare
from tests.run import tiny


def prepared(*more, editor="emsedit", **options):
    return prepare(tiny.command(*more, editor=editor).config, **options)


def file_rows(role):
    return json.loads((tiny.DATA / f"zsre_{role}.json").read_text())


def asked(plan):
    return [[record.edit.prompt for record in plan.records(j)] for j in range(len(plan))]


@pytest.fixture
def no_model(monkeypatch):
    def load(*_, **__):
        raise AssertionError("the model is loaded before the data are checked")

    monkeypatch.setattr(model, "load_lm", load)


def test_an_editor_that_learns_has_data_and_settings_to_learn_with(capsys):
    run = prepared("--config.editor.reg_coef=0.25")
    assert run.learning is not None
    assert run.learning.reg_coef == 0.25
    assert [spec.rank for spec in run.editor.specs] == [8, 4]  # halved for the second step
    assert [group.names for group in run.editor.sites] == [tiny.SITES]
    train, evaluation = ([row["src"] for row in file_rows(role)] for role in ("train", "eval"))
    assert run.train_plan is not None
    assert asked(run.train_plan) == [train[:4], train[4:8]]
    assert asked(run.valid_plan) == [evaluation[:4], evaluation[4:8]]
    assert run.train_plan.shapes == run.valid_plan.shapes  # one compiled program for both
    assert run.score_plan.plan is run.valid_plan

    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["model", "data", "sites"]
    assert str(tiny.MODEL) in said[0]
    assert said[1] == "data     zsre: 8 of 60 to train on, 8 of 60 to edit; 2 batches of 4"
    assert said[2] == "sites    model.layers.{3..4}.mlp.gate_proj (2 of 32 x 56)"


@pytest.mark.parametrize(("editor", "options"), [("ultraedit", {}), ("emsedit", {"training": False})])
def test_without_training_no_training_data_are_read(editor, options, capsys):
    run = prepared("--config.dataset.train_path=nowhere.json", editor=editor, **options)
    assert run.learning is None
    assert run.train_plan is None
    assert "data     zsre: 8 of 60 to edit; 2 batches of 4" in capsys.readouterr().out


def test_a_seed_draws_training_and_editing_apart():
    runs = [prepared("--config.dataset.shuffle", f"--config.seed={seed}") for seed in (3, 3, 4)]
    draws = [[plan.rows for plan in (run.train_plan, run.valid_plan) if plan is not None] for run in runs]
    for mine, again in zip(draws[0], draws[1], strict=True):
        np.testing.assert_array_equal(mine, again)
    different = {str(rows.tolist()) for rows in (*draws[0], *draws[2])}
    assert len(different) == 4


def test_the_facts_of_the_package_need_no_file(capsys):
    run = prepared("--config.dataset.name=worldfacts", "--config.dataset.train_path=", "--config.dataset.valid_path=")
    assert len(run.valid_plan) == 2
    assert "worldfacts: 8 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.dataset.n_edits=31"], "zsre_train.json: num_seq=2 x n_edits=31 = 62 rows are needed, but .* 60"),
        (["--config.dataset.limit=7"], "zsre_train.json: num_seq=2 x n_edits=4 = 8 rows are needed, but .* 7"),
        (["--config.dataset.valid_path=nowhere.json"], "nowhere.json: there is no such file"),
    ],
)
def test_mistakes_in_the_data_are_told_before_the_model_is_loaded(no_model, flags, said):
    with pytest.raises(InputError, match=said):
        prepared(*flags)
