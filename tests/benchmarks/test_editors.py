"""The benchmark of editors, on made-up cells: what it runs, what it chooses and what it prints."""

import json

import pytest

from benchmarks import editors
from benchmarks.editors import MODELS, TABLE, Bench, Cell
from configs import common, smollm2
from emsedit_jax.run import cli

FILES = {name: (f"{name}_train.json", f"{name}_eval.json") for name in ("zsre", "counterfact")}


def fill(folder, cell, scores, seconds=4.0):
    """A finished cell."""
    path = folder / cell.name
    path.mkdir()
    found = dict(zip(editors.NAMES, scores, strict=True))
    summary = {
        "scores": {"unedited": dict.fromkeys(editors.NAMES, 10.0), "edited": found},
        "seconds": {"train": seconds if cell.row.trains else 0.0, "edit": seconds / 2},
        "trained_on": 100 if cell.row.trains else 0,
    }
    (path / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)
@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_cell_is_a_command_line_that_the_program_takes(row, search, model, tmp_path):
    cell = Cell(row, row.etas[0], "zsre", search)
    command = cli.read(["launch.py", *editors.flags(cell, Bench(model, FILES, tmp_path, seed=1))])
    config = command.config
    assert (config.editor.name, config.editor.iters, config.editor.lr) == (row.editor, row.iters, row.etas[0])
    assert config.num_seq * config.dataset.n_edits == editors.ROWS
    trained = config.dataset.train_rows if config.editor.get("n_epochs") else ""
    if search:  # on training rows alone, and not on those that were trained on
        assert config.dataset.valid_path == "zsre_train.json"
        assert (config.dataset.rows, trained) in (("200:400", ":200"), ("200:400", ""))
    else:
        assert config.dataset.valid_path == "zsre_eval.json"
    assert bool(trained) == row.trains
    assert config.editor.get("back_depth", 10) == (2 if search and row.editor == "rledit" else 10)
    assert command.config.model.name_or_path.startswith(model)


def test_cells_have_folders_of_their_own(tmp_path):
    cells = [
        Cell(row, eta, name, search) for row in TABLE for eta in row.etas for name in FILES for search in (True, False)
    ]
    searched = {cell.name for cell in cells if cell.search}
    assert len({cell.name for cell in cells if not cell.search}) == len(TABLE) * 4 * 2
    assert len(searched) == len(TABLE) * 4  # one search serves both data sets


def test_the_known_etas_are_those_of_the_configs(tmp_path, capsys):
    for row in TABLE:
        for name in FILES:
            fill(tmp_path, Cell(row, common.eta(smollm2.ETA, row.editor, row.iters), name, search=False), (50, 40, 30))
    editors.main(["editors", "--data=nowhere", f"--out={tmp_path}", "--known"])
    said = capsys.readouterr().out
    assert "| EMSEdit | 0.0003 | 50.0 | 40.0 | 30.0 |" in said
    assert said.count("| RLEdit^2 |") == 2


def test_the_best_mean_is_chosen_and_finished_cells_are_not_run_again(tmp_path):
    row = TABLE[0]
    for eta, scores in zip(row.etas, ((50, 50, 20), (60, 50, 25), (90, 10, 10), (0, 0, 0)), strict=True):
        fill(tmp_path, Cell(row, eta, "zsre", search=True), scores)
    assert editors.choose(row, Bench("smollm2", FILES, tmp_path)) == row.etas[1]


def test_the_searched_etas_are_scaled_for_the_model():
    row = TABLE[0]
    assert editors.searched(row, "smollm2") == row.etas == (1e-5, 3e-5, 1e-4, 3e-4)
    assert editors.searched(row, "gemma3") == (1e-6, 3e-6, 1e-5, 3e-5)


def test_a_cell_that_diverged_is_not_chosen(tmp_path):
    row = TABLE[0]
    for eta in row.etas[:3]:
        fill(tmp_path, Cell(row, eta, "zsre", search=True), (1, 1, 1))
    last = tmp_path / Cell(row, row.etas[3], "zsre", search=True).name
    last.mkdir()
    (last / "diverged.txt").write_text("too large")
    assert editors.run(Cell(row, row.etas[3], "zsre", search=True), Bench("smollm2", FILES, tmp_path)) is None
    assert editors.choose(row, Bench("smollm2", FILES, tmp_path)) == row.etas[0]


def test_the_table_has_the_unedited_model_and_seconds_an_edit(tmp_path):
    chosen = {row: row.etas[0] for row in TABLE}
    for row, eta in chosen.items():
        fill(tmp_path, Cell(row, eta, "counterfact", search=False), (80, 70, 30))
    lines = list(editors.lines("counterfact", chosen, Bench("smollm2", FILES, tmp_path)))
    assert lines[2] == "| unedited | | 10.0 | 10.0 | 10.0 | | |"
    assert lines[3] == "| UltraEdit | 1e-05 | 80.0 | 70.0 | 30.0 | - | 0.010 |"
    assert lines[5] == "| MEND | 1e-05 | 80.0 | 70.0 | 30.0 | 0.040 | 0.010 |"
    assert len(lines) == 3 + len(TABLE)


def test_some_lines_of_the_table(tmp_path, capsys):
    assert [row.title for row in editors.wanted("EMSEdit,MEND")] == ["MEND", "EMSEdit"]
    assert editors.wanted("") == list(TABLE)
    assert cli.exit_code(editors.main, ["editors", "--data=nowhere", "--editors=EMSedit"]) == 2
    assert "did you mean" in capsys.readouterr().err.lower()


def test_terms_are_accepted_only_when_told_so(tmp_path):
    cell, bench = Cell(TABLE[0], 1e-5, "zsre", search=False), Bench("gemma3", FILES, tmp_path)
    for told in (False, True):
        command = cli.read(["launch.py", *editors.flags(cell, bench._replace(accept_terms=told))])
        assert command.config.model.accept_terms == told


def test_the_data_must_be_named(capsys):
    assert cli.exit_code(editors.main, ["editors"]) == 2
    assert "--data" in capsys.readouterr().err
