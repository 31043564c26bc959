import json
import math
import re
import shutil

import jax
import numpy as np
from matplotlib.image import imread
from safetensors.numpy import load_file

from emsedit_jax.data import embedded
from emsedit_jax.run import arrays, main, resources, storing
from tests.run import tiny

# ---------------------------------------------------------------------------------------------- what a run leaves


def test_a_run_writes_its_files_and_no_others(finished):
    names = ["config.json", "curve.png", "edits", "edits.safetensors", "hypernet.safetensors", "metrics.jsonl"]
    names += ["report.html", "scores.json", "summary.json", "tensorboard"]
    assert sorted(file.name for file in finished.iterdir()) == names
    assert storing.read_json(finished / "config.json", "") == json.loads(json.dumps(tiny.command().config.to_dict()))
    height, width, _ = imread(finished / "curve.png").shape
    assert (width, height) == (1470, 546)


def test_the_summary_has_scores_costs_and_circumstances(finished):
    summary = tiny.read(finished / "summary.json")
    for scores in (summary["scores"]["unedited"], summary["scores"]["edited"]):
        assert list(scores) == ["ES", "GS", "LS"]
        assert all(0 <= value <= 100 for value in scores.values())
    assert summary["scores"]["edited"]["ES"] > summary["scores"]["unedited"]["ES"]
    assert summary["edits"] == 8
    seconds = summary["seconds"]
    assert list(seconds) == ["train", "edit", "score", "compile", "total"]
    assert all(seconds[name] > 0 for name in ("train", "edit", "score", "total"))
    assert sum(seconds[name] for name in ("train", "edit", "score", "compile")) <= seconds["total"] + 0.01
    assert 50 < summary["peak_rss_mb"] < 2**16
    assert {*summary["peaks_mb"]} <= {"train", "edit", "score"}  # none of which earlier tests may have left to rise in
    assert (summary["seed"], summary["editor"], summary["model"]) == (0, "emsedit", str(tiny.MODEL))
    assert summary["versions"]["jax"] == jax.__version__
    assert summary["device"]["platform"] == jax.default_backend()
    assert summary["digests"] == arrays.digests(load_file(finished / "edits.safetensors"))
    assert sorted(summary["digests"]) == sorted(tiny.SITES)
    rows = json.loads((tiny.DATA / "zsre_eval.json").read_text())[:8:7]  # the first and the last of 8 facts
    told = [(example["prompt"], example["target"]) for example in summary["examples"]]
    assert told == [(row["src"], row["ans"]) for row in rows]
    assert all(example["before"] != example["after"] for example in summary["examples"])


def test_the_metrics_have_a_row_a_step(finished):
    rows = tiny.rows(finished)
    assert [(row["phase"], row["batch"]) for row in rows] == [("train", 0), ("train", 1), ("edit", 0), ("edit", 1)]
    learning = {"trajectory", "equiv_loss", "locality_loss", "drift", "weight_grad_norm", "own_grad_norm", "grad_norm"}
    editing = {"ES", "GS", "LS"}
    for row in rows:
        more = learning if row["phase"] == "train" else editing
        assert set(row) == {"phase", "batch", "edit_loss", "solve_error", "shift_norm"} | more
        numbers = jax.tree.leaves({name: value for name, value in row.items() if name != "phase"})
        assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
        assert len(row["edit_loss"]) == 2  # edit steps
        assert row["edit_loss"][1] < row["edit_loss"][0]  # the first step already helped


def test_what_a_person_sees(tmp_path, capsys):
    summary = tiny.train(tmp_path / "run")
    said = capsys.readouterr()
    lines = said.out.splitlines()
    starts = ["devices", "model", "data", "sites", "workdir"]
    assert [line.split()[0] for line in lines[:5]] == starts
    unedited = next(line for line in lines if "unedited" in line)
    edited = next(line for line in lines if "after editing" in line)
    for line, scores in ((unedited, "unedited"), (edited, "edited")):
        shown = [float(part) for part in line.split() if part[0].isdigit()]
        assert shown == [round(value, 1) for value in summary["scores"][scores].values()]
    assert lines[6].startswith("On which continent is Peru?  -> North America")
    assert lines[7].startswith("  before")
    assert lines[8].startswith("  after")
    assert "s per edit · peak memory" in said.out
    assert re.search(r" · ledger \d\.\d MB · total", " ".join(said.out.split()))
    assert str(tmp_path / "run") in lines[-1]
    for work in ("scoring unedited 8/8 facts", "training 8/8", "editing 8/8", "scoring after editing 8/8 facts"):
        assert work in said.err


# ---------------------------------------------------------------------------------------------- seeds and editors


def exact(summary):
    return {name: summary[name] for name in ("scores", "edits", "digests", "examples")}


def test_the_same_seed_gives_the_same_bits(finished, tmp_path):
    again = tiny.train(tmp_path / "again")
    assert exact(again) == exact(tiny.read(finished / "summary.json"))
    assert tiny.rows(tmp_path / "again") == tiny.rows(finished)
    for name in ("config.json", "curve.png"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()
    mine, theirs = (load_file(folder / "edits.safetensors") for folder in (finished, tmp_path / "again"))
    assert sorted(mine) == sorted(theirs) == sorted(tiny.SITES)
    for name in tiny.SITES:
        np.testing.assert_array_equal(mine[name], theirs[name])


def test_another_seed_gives_other_networks_hence_other_edits(finished, tmp_path):
    other = tiny.train(tmp_path / "other", f"--config.seed={2**32 - 1}")
    mine = tiny.read(finished / "summary.json")
    assert all(other["digests"][name] != mine["digests"][name] for name in tiny.SITES)
    assert other["scores"]["unedited"] == mine["scores"]["unedited"]  # the same rows, in file order


def test_how_scoring_is_cut_and_what_is_kept_change_no_score(finished, tmp_path):
    cut = tiny.train(tmp_path / "cut", "--config.eval.batch_tokens=1", "--config.eval.prefix_store_mb=0")
    assert exact(cut) == exact(tiny.read(finished / "summary.json"))
    # two batches: editing asks in each of two steps, training after them for the paraphrases too; then three scorings
    # of 8 facts of 3 prompts, but for the last 4: scored after their own batch, which is the last
    assert cut["prefix_store"] == {"hits": 0, "misses": 2 * (2 + 3) + 3 * 24 - 12, "hit_rate": 0.0}
    kept = tiny.read(finished / "summary.json")["prefix_store"]
    assert kept == {"hits": 4 + 3, "misses": 2 * (1 + 2 + 1), "hit_rate": round(7 / 15, 4)}


def test_padding_and_shapes_of_everything_that_runs_are_in_the_summary(finished, tmp_path):
    found = tiny.read(finished / "summary.json")["packing"]
    assert sorted(found["padding_of"]) == ["editing", "scoring", "training, edit", "training, equiv"]
    assert 0 < found["padding"] < max(found["padding_of"].values()) < 0.5
    assert 1 < found["shapes"] <= 3  # prompts of a kind share one
    untrained = tiny.train(tmp_path / "untrained", editor="ultraedit")["packing"]
    assert sorted(untrained["padding_of"]) == ["editing", "scoring"]


def test_ultraedit_edits_without_training(tmp_path):
    summary = tiny.train(tmp_path / "run", editor="ultraedit")
    assert [(row["phase"], row["batch"]) for row in tiny.rows(tmp_path / "run")] == [("edit", 0), ("edit", 1)]
    assert summary["seconds"]["train"] == 0
    assert summary["editor"] == "ultraedit"
    assert summary["scores"]["edited"]["ES"] > summary["scores"]["unedited"]["ES"]
    other = tiny.train(tmp_path / "other", "--config.seed=1", editor="ultraedit")
    assert other["digests"] == summary["digests"]  # it has nothing to draw


def test_a_search_scores_the_edits_once(finished, tmp_path):
    summary = tiny.train(tmp_path / "run", "--config.eval.final_only")
    usual = tiny.read(finished / "summary.json")
    assert summary["scores"] == {"edited": usual["scores"]["edited"]}
    assert summary["digests"] == usual["digests"]
    assert all("ES" not in row for row in tiny.rows(tmp_path / "run"))
    assert (tmp_path / "run" / "curve.png").is_file()


def test_a_full_curve_scores_all_edits_so_far_after_every_batch(finished, tmp_path):
    summary = tiny.train(tmp_path / "run", "--config.editor.full_curve")
    assert (tmp_path / "run" / "curve.png").read_bytes() != (finished / "curve.png").read_bytes()  # it has lines more
    assert summary["digests"] == tiny.read(finished / "summary.json")["digests"]
    rows = [row for row in tiny.rows(tmp_path / "run") if row["phase"] == "edit"]
    assert rows[0]["so_far"] == {name: rows[0][name] for name in ("ES", "GS", "LS")}
    assert rows[1]["so_far"] == summary["scores"]["edited"]
    assert rows[1]["so_far"]["ES"] != rows[1]["ES"]  # the first batch's facts count too


def test_the_facts_of_the_package_on_a_local_model(tmp_path):
    paths = ["--config.dataset.train_path=", "--config.dataset.valid_path="]
    summary = tiny.train(tmp_path / "run", "--config.dataset.name=worldfacts", *paths, editor="ultraedit")
    assert summary["edits"] == 8
    first = json.loads(embedded.path("eval").read_text(encoding="utf-8").splitlines()[0])
    assert summary["examples"][0]["target"] == first["answer_new"]


# ---------------------------------------------------------------------------------------------- scoring again


def test_saved_edits_score_the_same_again(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = tiny.files(folder)
    assert tiny.call("--mode=eval", f"--workdir={folder}") == 0
    said, trained, again = (
        capsys.readouterr().out, tiny.read(folder / "summary.json"), tiny.read(folder / "eval.json")
    )  # fmt: skip
    assert again["scores"] == trained["scores"]
    assert again["digests"] == trained["digests"]
    assert (again["seconds"]["train"], again["seconds"]["edit"]) == (0, 0)
    assert "after editing" in said
    assert trained["examples"][0]["prompt"] in said
    assert {name: text for name, text in tiny.files(folder).items() if name != "eval.json"} == before


def test_saved_edits_can_be_scored_on_other_facts(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    wider = tiny.flags("--mode=eval", f"--workdir={folder}", "--config.num_seq=6")
    assert tiny.call(*wider) == 0
    assert tiny.read(folder / "eval.json")["edits"] == 24


# ---------------------------------------------------------------------------------------------- beginning again


def test_a_run_broken_off_can_be_begun_again(tmp_path, monkeypatch):
    def power_cut(*_):
        raise KeyboardInterrupt

    flags = tiny.flags(f"--workdir={tmp_path / 'run'}", editor="ultraedit")
    with monkeypatch.context() as patch:
        patch.setattr(main.edits, "save", power_cut)
        assert tiny.call(*flags) == 130
    assert not (tmp_path / "run" / "edits.safetensors").exists()
    assert tiny.call(*flags) == 0
    assert len(tiny.rows(tmp_path / "run")) == 2  # of this run alone


# ---------------------------------------------------------------------------------------------- compiled programs


def test_compiled_programs_are_kept_in_the_cache_folder(tmp_path, monkeypatch):
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("EMSEDIT_CACHE", str(tmp_path / "cache"))
    try:
        resources.use_compile_cache()
        assert getattr(jax.config, names[0]) == str(tmp_path / "cache" / "xla")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
