"""Whether a model fits so many devices, and what an edit costs there: compiled ahead of time, without any of them.

    python -m benchmarks.plan --config=configs/zsre_llama.py --devices=8 --device=h100

Any config of `launch.py`; the mesh is that of `--config.mesh.data` and `--config.mesh.model` (here -1 and 1 stand for
all devices along the model). The model's size is known for the names of `benchmarks/sizes.py`; else
`--config.model.name_or_path` is a folder with a `config.json`. Nothing is read of the data: an edit batch has
`dataset.n_edits` prompts of about 16 + 4 tokens (`--prompt`, `--answer`).

With the extra `plan` (`pip install -e '.[plan]'`) the programs are compiled for H100s; otherwise for as many virtual
CPU devices, in float32: bytes of weights and edits are exact all the same, temporaries of passes through a model in
bfloat16 are halved, and say little of what an accelerator's compiler would take. `useful_tflop` is what the method
needs, `seconds_at_peak` what the devices would take for their share of it at their published peak, in the model's dtype
or in float32: a lower bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from benchmarks import command
from emsedit_jax.errors import InputError, near
from emsedit_jax.run import cli

DEVICES = {  # GB of memory, name in `benchmarks/peaks.py`
    "h100": (80, "NVIDIA H100"),
    "h200": (141, "NVIDIA H200"),
    "a100": (80, "NVIDIA A100"),
    "l40s": (48, "NVIDIA L40S"),
    "v5e": (16, "TPU v5 lite"),
    "v5p": (95, "TPU v5p"),
    "v6e": (32, "TPU v6 lite"),
}
H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000
l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3" """
PLUGIN = "jax_plugins.xla_cuda12"


def parser() -> argparse.ArgumentParser:
    found = command.parser(__doc__)
    found.add_argument("--devices", type=int, default=1, help="how many (%(default)s)")
    found.add_argument("--device", default="h100", help=f"of which kind: {', '.join(DEVICES)} (%(default)s)")
    found.add_argument("--prompt", type=int, default=16, help="tokens of a prompt, on average (%(default)s)")
    found.add_argument("--answer", type=int, default=4, help="tokens of an answer, on average (%(default)s)")
    found.add_argument("--cpu", action="store_true", help="compile for virtual CPU devices all the same")
    return found


def main(argv: Sequence[str]) -> None:
    own, rest = parser().parse_known_args(list(argv[1:]))
    if own.device not in DEVICES:
        raise InputError(f"--device={own.device}: known are {', '.join(DEVICES)}.{near(own.device, DEVICES)}")
    if own.devices < 1:
        raise InputError(f"--devices={own.devices}: must be at least 1.")
    gpu = own.device == "h100" and not own.cpu and _has_plugin()
    prepare_jax(own.devices, gpu=gpu)
    cli.settle()
    config = cli.read([argv[0], *with_paths(rest)]).config
    from benchmarks import timing  # only now that JAX knows its devices

    timing.report("plan", **planned(config, own, gpu=gpu))


def _has_plugin() -> bool:
    try:
        return importlib.util.find_spec(PLUGIN) is not None
    except ModuleNotFoundError:
        return False


def prepare_jax(devices: int, *, gpu: bool) -> None:
    """Settles, before any device is looked at, what programs are compiled for."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if gpu:
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    import jax

    if gpu:
        jax.devices()  # which registers the plugin
    else:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)


def with_paths(argv: Sequence[str]) -> list[str]:
    """The flags, with the data's paths that a config may want and nothing here reads."""
    return [*argv, "--config.dataset.train_path=none", "--config.dataset.valid_path=none"]


def scene(config: ml_collections.ConfigDict, mesh: tuple[int, int], sizes: Any, *, gpu: bool) -> Any:
    """The config's programs on a mesh of so many by so many devices, to be compiled (`ahead.Plan`)."""
    import jax

    from benchmarks import ahead
    from emsedit_jax import sharding
    from emsedit_jax.run import prepare

    lm, count = lm_config(config.model), mesh[0] * mesh[1]
    if gpu:
        from jax.experimental import topologies

        devices = topologies.get_topology_desc(
            platform="cuda", topology_name="", topology=f"1x1x{count}", target_config=H100
        ).devices
    else:
        devices, lm = jax.devices(), dataclasses.replace(lm, dtype="float32")
    editor = prepare.editor_of(config, lm)
    learning = prepare.learning_of(config, editor.method, max(config.num_seq, 1)) if editor.method.learned else None
    return ahead.Plan(sharding.mesh_over(*mesh, devices), editor, learning, sizes, config.editor.token)


def planned(config: ml_collections.ConfigDict, own: argparse.Namespace, *, gpu: bool) -> dict[str, Any]:
    """Everything there is to say of the config on these devices."""
    from benchmarks import ahead, peaks
    from emsedit_jax.lm import params

    gb, kind = DEVICES[own.device]
    data, model = shape(config.mesh, own.devices)
    plan = scene(config, (data, model), ahead.Sizes(config.dataset.n_edits, own.prompt, own.answer), gpu=gpu)
    short = config.model.dtype != "float32"  # passes through the model are in a shorter format
    half = 0.5 if short and not gpu else 1.0  # of what was compiled in float32 in its place
    peak = peaks.peak(kind)
    assert peak is not None
    rows, seconds, most = {}, 0.0, 0.0
    for name, one in plan.programs():
        best = peak.bfloat16 if one.of_model and short else peak.float32 or peak.bfloat16 / 6
        took = one.useful_flop / (own.devices * best * 1e12)
        temporaries = one.temporary_bytes * (half if one.of_model else 1.0)
        most = max(most, temporaries + one.output_bytes)
        if name == "prefix" or name.startswith("shift"):
            seconds += took
        elif name == "capture":
            seconds += took * config.editor.iters
        rows[name] = {
            "temporary_gb": round(temporaries / 1e9, 3),
            "output_gb": round(one.output_bytes / 1e9, 3),
            "useful_tflop": round(one.useful_flop / 1e12, 3),
            "compiled_tflop_per_device": None if one.flop is None else round(one.flop / 1e12, 3),
            "seconds_at_peak": float(f"{took:.3g}"),
            "collectives": one.collectives,
        }
    weights = plan.weights_bytes * half
    held = weights + 2 * plan.deltas_bytes + plan.networks_bytes + most
    return {
        "model": config.model.name_or_path,
        "parameters": params.count(plan.config),
        "devices": f"{own.devices} x {own.device}, {data} x {model} (data x model)",
        "compiled_for": "H100" if gpu else "virtual CPU devices, float32",
        "not_divided": plan.undivided,
        "gb_per_device": {
            "weights": round(weights / 1e9, 3),
            "edits": round(plan.deltas_bytes / 1e9, 3),
            "networks": round(plan.networks_bytes / 1e9, 3),
            "most of one program": round(most / 1e9, 3),
            "all": round(held / 1e9, 2),
        },
        "memory_gb": gb,
        "fits": bool(held < 0.9 * gb * 1e9),
        "seconds_per_edit_at_peak": float(f"{seconds / config.dataset.n_edits:.3g}"),
        "programs": rows,
    }


def shape(mesh: ml_collections.ConfigDict, devices: int) -> tuple[int, int]:
    """Devices along data and model."""
    data, model = mesh.data, mesh.model
    if (data, model) == (-1, 1):  # the default; a plan is for what does not fit one device
        data, model = 1, devices
    data, model = (devices // model if data == -1 else data), (devices // data if model == -1 else model)
    if data * model != devices:
        raise InputError(f"--config.mesh.data={mesh.data} and .model={mesh.model} do not make {devices} devices.")
    return data, model


def lm_config(model: ml_collections.ConfigDict) -> Any:
    """The architecture. Raises InputError for a name that nothing is known of."""
    from benchmarks.sizes import SIZES
    from emsedit_jax.lm.families import from_hf, read_folder

    name, dtype = model.name_or_path, "bfloat16" if model.dtype == "auto" else model.dtype
    if name in SIZES:
        found = from_hf(SIZES[name])
    elif (Path(name) / "config.json").is_file():
        found, _ = read_folder(Path(name))
    else:
        raise InputError(f"nothing is known of {name}: name a folder with its config.json.{near(name, SIZES)}")
    return dataclasses.replace(found, dtype=dtype)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
