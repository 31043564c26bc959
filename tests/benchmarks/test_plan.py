"""Programs compiled ahead of time: bytes and operations of each device, and what goes between them."""

import argparse
import json
import math

import jax
import numpy as np
import pytest

from benchmarks import ahead, plan
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
HLO = """\
HloModule jit_f

%body (arg: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %all-reduce.1 = f32[4,8]{1,0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%sum
}

ENTRY %main (p0: f32[4,8]) -> f32[4,8] {
  %all-gather.2 = (f32[4,8]{1,0}, bf16[16]{0}) all-gather-start(%p0), dimensions={0}
  %all-gather-done = f32[4,8]{1,0} all-gather-done(%all-gather.2)
  %while.3 = (s32[], f32[4,8]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %add = f32[4,8]{1,0} add(%a, %b)
}
"""


def test_collectives_are_counted_as_often_as_they_run():
    assert ahead.collectives(HLO) == {
        "all-reduce": {"count": 5, "mb": round(5 * 128 / 1e6, 2)},
        "all-gather": {"count": 1, "mb": round((128 + 32) / 1e6, 2)},
    }


def scene(mesh):
    """EMSEdit's programs on the model that the devices divide."""
    sites = edit_sites.resolve(CONFIG, ["model.layers.{1..2}.mlp.gate_proj", "model.layers.{1..2}.mlp.up_proj"])
    specs = methods.net_specs(methods.method("emsedit"), iters=1, lr=1e-3, rank=32, n_blocks=1)
    editor = Editor(CONFIG, sites, methods.method("emsedit"), specs, 1)
    grid = jax.sharding.Mesh(np.array(jax.devices()[: math.prod(mesh)], dtype=object).reshape(mesh), ("data", "model"))
    return ahead.Plan(grid, editor, None, ahead.Sizes(facts=64, answer=1), "ans")


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


def own(**changes):
    """The benchmark's flags."""
    return argparse.Namespace(**{"devices": 8, "device": "h100", "prompt": 8, "answer": 2} | changes)


def config(*more):
    flags = [f"--config={ROOT / 'configs/zsre_smollm2.py'}", f"--config.model.name_or_path={MODEL}"]
    sites = "--config.model.edit_modules=('model.layers.{3..4}.mlp.gate_proj',)"
    return cli.read(["plan", *plan.with_paths([*flags, sites, "--config.editor.rank=8", *more])]).config


def test_a_plan_says_what_each_device_holds_and_whether_it_fits():
    found = plan.planned(config("--config.mesh.data=2", "--config.mesh.model=4"), own(), gpu=False)
    json.dumps(found)
    assert found["devices"] == "8 x h100, 2 x 4 (data x model)"
    assert found["fits"]
    assert {"prefix", "capture", "scoring", "meta gradient", "shift, step 2", "pull-back, step 2"} <= set(
        found["programs"]
    )
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
