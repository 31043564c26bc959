"""The roofline on a tiny model: every phase runs, and is counted as XLA counts it but for padding."""

import json
import shutil

import jax
import pytest

from benchmarks import made_up, roofline
from emsedit_jax.errors import InputError
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run.prepare import prepare
from tests.quick_compiles import quick_compiles
from tests.run import tiny

__all__ = ["quick_compiles"]

PASSES = ["prefix", "capture", "meta gradient", "shift", "pull-back", "scoring, first sight", "scoring, stored"]
WHOLE = ["edit, all steps", "training batch"]


@pytest.fixture(scope="module")
def scenes(quick_compiles):
    """One editor that asks for locality, and one without networks."""
    three = "--config.num_seq=3"
    return {
        "rledit": roofline.scene(prepare(tiny.command(three, editor="rledit").config)),
        "ultraedit": roofline.scene(prepare(tiny.command(three, editor="ultraedit").config)),
    }


def test_every_phase_runs_and_is_counted(scenes):
    found = roofline.phases(scenes["rledit"])
    assert sorted(found) == sorted(PASSES + WHOLE)
    for name, phase in found.items():
        jax.block_until_ready([phase.call(), phase.call()])  # nothing that it needs again is given away
        counted, least = roofline.counted_by_xla(phase), 0.9 if phase.of_model else 0.1  # XLA counts no factorisation
        assert phase.flop > 0
        assert (counted is None) == (name in WHOLE)
        assert counted is None or counted > least * phase.flop, name


def test_a_training_batch_is_its_edit_and_more(scenes):
    found = roofline.phases(scenes["rledit"])
    parts = sum(found[name].flop for name in ("prefix", "capture", "shift"))
    assert found["edit, all steps"].flop == pytest.approx(parts)  # of one step
    parts += found["meta gradient"].flop + found["pull-back"].flop
    assert parts < found["training batch"].flop < 2 * parts  # and the layers below its lessons


def test_without_networks_there_is_nothing_to_learn(scenes):
    assert not {"meta gradient", "pull-back", "training batch"} & set(roofline.phases(scenes["ultraedit"]))


def test_shares_are_of_the_products_of_the_same_run(scenes, monkeypatch):
    monkeypatch.setattr(roofline, "REPEATS", 1)
    phases = {
        name: phase for name, phase in roofline.phases(scenes["ultraedit"]).items() if name in ("prefix", "shift")
    }
    found = roofline.table(phases, "float32", 512)
    for name, row in found["phases"].items():
        share = phases[name].flop / (row["seconds"] * found["peak_gflops"]["float32"] * 1e9)
        assert row["share_of_peak"] == pytest.approx(share, rel=0.05, abs=2e-3)  # of rounded numbers
        assert "mfu" not in row  # no published peak of a CPU


def test_two_batches_are_too_few():
    with pytest.raises(InputError, match=r"3 batches or more; set --config\.num_seq=3"):
        roofline.scene(prepare(tiny.command().config))


def test_a_made_up_model_is_the_folders_in_all_but_its_numbers(tmp_path):
    for file in tiny.MODEL.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, tmp_path)
    made, real = made_up.lm(tmp_path, "float32"), load_lm(tiny.MODEL, "float32")
    assert made.config == real.config
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), one.params) for one in (made, real)]
    assert shapes[0] == shapes[1]
    assert float(made.params["embed"]["w"].std()) == pytest.approx(made_up.SPREAD, rel=0.1)
    assert made_up.lm(tmp_path, "auto").config.dtype == "bfloat16"


def test_a_made_up_model_takes_a_config(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        made_up.lm(tmp_path, "auto")


def test_the_command_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(roofline, "REPEATS", 1)
    monkeypatch.setattr(roofline, "phases", roofline.scoring_phases)  # the others are looked at above
    shutil.copytree(tiny.MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    flags = tiny.flags("--config.num_seq=3", f"--config.model.name_or_path={tmp_path / 'model'}", editor="ultraedit")
    roofline.main(["roofline", "--made_up", *flags])
    found = json.loads(capsys.readouterr().out)
    assert found["benchmark"] == "roofline"
    assert found["phases"]["scoring, stored"]["seconds"] > 0
    assert found["memory"]["peak_rss_mb"] > 100
