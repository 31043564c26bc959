"""The benchmark of data sets, on made-up runs: what it runs and what it prints."""

import json

import pytest

from benchmarks import datasets
from emsedit_jax.errors import InputError
from emsedit_jax.run import cli


@pytest.fixture
def data(tmp_path):
    """Empty files where the real ones would be."""
    for name in ("zsre", "counterfact", "ripple_effect", "fever"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for ending in ("train", "eval_b", "eval_a"):
            (tmp_path / "data" / name / f"{name}_{ending}.json").touch()
    for name in ("mquake", "ability"):
        (tmp_path / "data" / name).mkdir()
    (tmp_path / "data" / "zsre" / "zsre_eval.json").touch()
    return tmp_path / "data"


def fill(folder):
    """A finished run."""
    folder.mkdir(parents=True)
    scores = {"ES": 10.0, "LS.kl": 0.125, "rte.mcc": 0.5, "asks.Forgetfulness": 40.0, "ES.first": 1.0}
    summary = {
        "scores": {"unedited": {"ES": 1.0, "rte.mcc": -0.5}, "edited": scores},
        "intervals": {row: {name: [0.0, 50.0] for name in scores} for row in ("unedited", "edited")},
        "items": {"edited": dict.fromkeys(scores, 7)},
        "seconds": {"total": 90.0},
    }
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("name", datasets.CONFIGS)
def test_a_run_is_a_command_line_that_the_program_takes(data, name):
    command = cli.read(["launch.py", *datasets.flags(name, data)])
    config = command.config
    assert (config.dataset.name, config.num_seq * config.dataset.n_edits) == (name, datasets.ROWS)
    assert config.eval.further
    if name == "mquake":  # other rows of the one file
        assert config.dataset.train_path == config.dataset.valid_path
        assert (config.dataset.rows, config.dataset.train_rows) == (":200", "200:")
    assert bool(config.eval.ability_path) == (name == "zsre")


def test_the_first_file_by_name_is_taken(data):
    assert datasets.files(data, "zsre")[1].name == "zsre_eval.json"
    assert datasets.files(data, "fever")[1].name == "fever_eval_a.json"
    (data / "fever" / "fever_train.json").unlink()
    with pytest.raises(InputError, match=r"holds no fever_train\*\.json"):
        datasets.files(data, "fever")


def test_tables_of_finished_runs(data, tmp_path, capsys):
    fill(tmp_path / "out" / "zsre")
    datasets.main(["datasets", f"--data={data}", f"--out={tmp_path / 'out'}", "--only=zsre"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("python launch.py --config=configs/zsre_smollm2.py ")
    assert any(line.startswith("| zsre | before | 1.0 | - | - |") for line in lines)
    after = next(line for line in lines if line.startswith("|  | after | 10.0 |"))
    assert "| 0.12 |" in after
    assert after.endswith("| 1.5 |")
    assert "| zsre | rte.mcc | 7 | -0.50 (0.00 to 50.00) | 0.50 (0.00 to 50.00) |" in lines
    assert "| zsre | asks.Forgetfulness | 7 | - | 40.0 (0.0 to 50.0) |" in lines
    assert not any("ES.first" in line for line in lines)


def test_an_unknown_data_set_is_told(data, capsys):
    assert cli.exit_code(datasets.main, ["datasets", f"--data={data}", "--only=zrse"]) == 2
    assert "Did you mean 'zsre'" in capsys.readouterr().err
