"""Programs compiled ahead of time: bytes and operations of each device, and what goes between them."""

import argparse
import json
import math

import jax
import numpy as np
import pytest

from benchmarks import ahead, batches, plan
from benchmarks.batches import Sizes
from benchmarks.target import Target
from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.errors import InputError
from emsedit_jax.lm import params
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.meta import methods
from emsedit_jax.meta.trajectory import Editor
from emsedit_jax.run import cli
from tests.run.tiny import MODEL, ROOT

CONFIG = LMConfig(  # what the devices divide
    family="llama", vocabulary=512, d=1024, f=4096, h=8, g=8, e=128, num_layers=4, norm_eps=1e-5, rope_theta=1e4
)


def scene(mesh):
    """EMSEdit's programs on the model that the devices divide."""
    sites = edit_sites.resolve(CONFIG, ["model.layers.{1..2}.mlp.gate_proj", "model.layers.{1..2}.mlp.up_proj"])
    specs = methods.net_specs(methods.method("emsedit"), iters=1, lr=1e-3, rank=32, n_blocks=1)
    editor = Editor(CONFIG, sites, methods.method("emsedit"), specs, 1)
    grid = jax.sharding.Mesh(np.array(jax.devices()[: math.prod(mesh)], dtype=object).reshape(mesh), ("data", "model"))
    return ahead.Plan(grid, editor, None, Sizes(facts=64, answer=1), "ans")


def test_work_is_divided_by_the_devices():
    alone, part = (dict(scene(mesh).programs(("capture", "shift"))) for mesh in ((1, 1), (2, 4)))
    assert alone.keys() == part.keys() == {"prefix", "capture", "shift, step 1"}
    for name, one in part.items():
        assert 8 * (one.flop or 0) == pytest.approx(alone[name].flop, rel=0.15), name


def test_bytes_of_weights_and_edits_are_counted_on_each_device():
    whole, part = scene((1, 1)), scene((2, 4))
    assert whole.weights_bytes == 4 * params.count(CONFIG)
    assert whole.deltas_bytes == 4 * 4 * 1024 * 4096
    norms = 4 * 1024 * (2 * 4 + 1)  # of four layers and the last: whole on each device
    assert part.weights_bytes == (whole.weights_bytes - norms) // 4 + norms
    assert part.deltas_bytes == whole.deltas_bytes // 4
    assert part.networks_bytes == whole.networks_bytes


def planned(*more, devices=8):
    """Of H100s, compiled for CPUs."""
    own = argparse.Namespace(prompt=8, answer=2)
    return plan.planned(config(*more), own, Target("h100", devices, "cpu"))


def planned_for(editor, *more):
    """On one H100."""
    own = argparse.Namespace(prompt=8, answer=2)
    return plan.planned(config(*more, editor=editor), own, Target("h100", 1, "cpu"))


def config(*more, editor="emsedit"):
    flags = [f"--config={ROOT / 'configs/zsre_smollm2.py'}:editor={editor}", f"--config.model.name_or_path={MODEL}"]
    sites = "--config.model.edit_modules=('model.layers.{3..4}.mlp.gate_proj',)"
    return cli.read(["plan", *plan.with_paths([*flags, sites, "--config.editor.rank=8", *more])]).config


def test_a_plan_says_what_each_device_holds_and_whether_it_fits():
    found = planned("--config.mesh.data=2", "--config.mesh.model=4")
    json.dumps(found)
    assert found["devices"] == "8 x h100, 2 x 4 (data x model)"
    assert found["run_with"] == "--config.mesh.data=2 --config.mesh.model=4"
    assert found["fits"]
    rest = {f"{name}, step {i}" for name in ("shift", "taught shift", "pull-back") for i in (1, 2)}
    assert set(found["programs"]) == {"prefix", "capture", "scoring", "meta gradient", "optimiser"} | rest
    assert {row["passes"] for row in found["programs"].values()} == {1}
    assert found["programs"]["capture"]["collectives"]
    assert 0 < found["seconds_per_edit_at_peak"] < 1
    held = found["gb_per_device"]
    assert held["all"] >= held["weights"] + 2 * held["edits"]


@pytest.mark.parametrize(
    ("data", "model", "shape"), [(-1, 1, (1, 8)), (2, -1, (2, 4)), (-1, 2, (4, 2)), (4, 2, (4, 2))]
)
def test_a_plan_lays_a_model_over_all_devices_unless_told_otherwise(data, model, shape):
    mesh = config(f"--config.mesh.data={data}", f"--config.mesh.model={model}").mesh
    assert plan.shape(mesh, 8) == shape


def test_a_mesh_that_does_not_take_all_devices_is_refused():
    with pytest.raises(InputError, match="do not make 8 devices"):
        plan.shape(config("--config.mesh.data=2", "--config.mesh.model=2").mesh, 8)


def test_a_model_that_nothing_is_known_of_is_refused():
    with pytest.raises(InputError, match="Meta-Llama-3-8B"):
        plan.lm_config(config("--config.model.name_or_path=meta-llama/Meta-Llama-3-8B").model)


@pytest.mark.parametrize(("argv", "words"), [(["--device=h10"], "h100"), (["--devices=0"], "at least 1")])
def test_flags_that_mean_nothing_are_refused(argv, words):
    with pytest.raises(InputError, match=words):
        plan.main(["plan", *argv])


def rows(*more, editor, mesh, wanted):
    """Account of each program of a batch of sixteen facts that takes several passes; of ten tokens each, about."""
    given = config(*more, editor=editor)
    sizes = Sizes(16, 8, 2, micro_batch=2, pass_tokens=given.dataset.batch_tokens, score_tokens=48)
    return dict(plan.scene(given, mesh, sizes, Target("h100", math.prod(mesh), "cpu")).programs(wanted))


def test_a_batch_is_cut_into_passes_of_so_many_tokens_on_each_part():
    sizes = Sizes(16, 8, 2, micro_batch=2, pass_tokens=40, score_tokens=96)
    for parts, count, scored in ((1, 5, 5), (2, 3, 3), (4, 1, 2)):
        assert len(batches.edit_passes(sizes, parts, "ans")) == count
        assert len(batches.score_passes(sizes, parts)) == scored
    assert len(batches.edit_passes(sizes._replace(pass_tokens=None), 1, "ans")) == 1


@pytest.mark.long
def test_a_plans_passes_are_those_of_a_run_and_its_loss_has_all_its_parts():
    wanted = ("capture", "scoring", "learning")
    found = rows("--config.dataset.batch_tokens=20", editor="malmen", mesh=(2, 1), wanted=wanted)
    assert set(found) == {"prefix", "capture", "scoring", "meta gradient", "locality", "optimiser"}
    assert {found[name].passes for name in ("prefix", "capture", "meta gradient", "locality")} == {5}  # of 2 x 20
    assert found["scoring"].passes == 5  # thrice the prompts, in 2 x 48


@pytest.mark.long
@pytest.mark.parametrize("mesh", [(1, 1), (2, 1)])
def test_rows_that_no_device_holds_together_are_planned_in_chunks(mesh):
    few = ("--config.editor.rows_at_once=16", "--config.dataset.batch_tokens=40", "--config.editor.iters=1")
    found = rows(*few, editor="emsedit", mesh=mesh, wanted=("shift", "pull-back"))
    assert [name.split(": ")[-1] for name in found] == ["prefix", "capture", "rows", "solve", "solve", "rows"]


def test_edit_steps_that_wait_for_one_loss_are_held_beside_what_runs_meanwhile():
    def waiting(iters):
        given = config(f"--config.editor.iters={iters}")
        found = plan.scene(given, (1, 1), Sizes(16, 8, 2), Target("h100", 1, "cpu"))
        rows = dict(found.programs())
        return {name: found.waiting_bytes(one) for name, one in rows.items()}

    one, three = waiting(1), waiting(3)
    kept = one["meta gradient"]
    sites = edit_sites.resolve(plan.lm_config(config().model), list(config().model.edit_modules))
    assert kept >= 4 * 16 * sum(len(group.layers) * (group.k + group.v) for group in sites)  # the rows of a step
    assert [one[name] for name in ("capture", "taught shift, step 1", "pull-back, step 1")] == [0, 0, 0]
    assert three["meta gradient"] > 2 * kept  # (later networks are of smaller rank)
    assert three["taught shift, step 1"] == 0 < three["taught shift, step 2"] < three["taught shift, step 3"]
    assert three["capture"] == three["taught shift, step 3"]
    assert three["scoring"] == three["optimiser"] == 0


def test_a_network_that_all_steps_share_is_compiled_once_and_its_time_counted_for_each():
    found = [planned_for("malmen", f"--config.editor.iters={iters}") for iters in (1, 2)]
    assert [one["programs"]["shift, step 1"]["steps"] for one in found] == [1, 2]
    assert all("shift, step 2" not in one["programs"] for one in found)
    once, twice = found
    below = once["programs"]["prefix"]["seconds_at_peak"] / config().dataset.n_edits  # it runs once for all steps
    both = [one["seconds_per_edit_at_peak"] - below for one in (once, twice)]
    assert both[1] == pytest.approx(2 * both[0], rel=0.02)


def test_a_program_that_its_compiler_refuses_does_not_fit(monkeypatch):
    class Refused:
        __name__ = "capture"

        def lower(self, *_, **__):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory: used 20G of 15.75G hbm.\nmore")

    monkeypatch.setattr(ahead.capturing, "capture", Refused())
    found = planned(devices=1)
    assert list(found["programs"]) == ["prefix"]
    assert found["refused"] == "capture: RESOURCE_EXHAUSTED: Ran out of memory: used 20G of 15.75G hbm."
    assert not found["fits"]
    assert found["seconds_per_edit_at_peak"] is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "more", "devices", "billions", "fits"),
    [
        ("zsre_llama.py", (), 8, 8.03, True),
        ("zsre_gptj.py", (), 4, 6.05, True),
        ("zsre_gemma.py", (), 8, 9.24, True),
        ("zsre_llama.py", ("--config.model.name_or_path=meta-llama/Meta-Llama-3-70B-Instruct",), 8, 70.55, True),
        ("zsre_llama.py", ("--config.model.name_or_path=meta-llama/Meta-Llama-3-70B-Instruct",), 1, 70.55, False),
    ],
)
def test_models_known_by_name_are_planned_at_their_full_size(file, more, devices, billions, fits):
    given = cli.read(["plan", *plan.with_paths([f"--config={ROOT / 'configs' / file}", *more])]).config
    found = plan.planned(given, argparse.Namespace(prompt=16, answer=4), Target("h100", devices, "cpu"))
    assert found["parameters"] == pytest.approx(1e9 * billions, rel=0.002)
    assert (found["fits"], found["refused"]) == (fits, None)
    assert found["gb_per_device"]["weights"] == pytest.approx(2 * billions / devices, rel=0.02)
    assert {"scoring", "meta gradient", "optimiser", "pull-back, step 2"} <= set(found["programs"])
    assert 0 < found["seconds_per_edit_at_peak"] < 0.02
