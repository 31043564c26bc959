import json

import datasets
import pytest

from emsedit_jax.run.prepare import prepare
from tests.refusals import refused
from tests.run import tiny


@pytest.fixture
def folder(tmp_path, tmp_path_factory, monkeypatch):
    """A folder that is read as a data set, with a split `train` of zsRE's training rows."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    rows = json.loads((tiny.DATA / "zsre_train.json").read_text())
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def prepared(folder, split):
    paths = [f"--config.dataset.{name}_path=hf:{folder}" for name in ("train", "valid")]
    return prepare(tiny.command(paths[0], f"{paths[1]}{split}").config)


def test_the_split_that_is_read_is_told(folder, capsys):
    prepared(folder, ":train")
    name = f"{folder.name}:train"
    wanted = f"batches of 4; rows to train on are those of {name}; rows to edit are those of {name}\n"
    assert wanted in capsys.readouterr().out


def test_rows_to_train_on_are_not_evaluated_with_unasked(folder):
    with refused(f"hf:{folder}: it has no split validation or test to evaluate with. It has train; name one as hf:"):
        prepared(folder, "")
