"""Whether a model fits so many devices, and what an edit costs there: compiled ahead of time, without any of them.

    python -m benchmarks.plan --config=configs/zsre_llama.py --devices=8 --device=h100

Any config of `launch.py`; the mesh is that of `--config.mesh.data` and `--config.mesh.model` (here -1 and 1 stand for
all devices along the model). The model's size is known for the names of `benchmarks/sizes.py`; else
`--config.model.name_or_path` is a folder with a `config.json`. Nothing is read of the data: an edit batch has
`dataset.n_edits` prompts of about 16 + 4 tokens (`--prompt`, `--answer`), with a paraphrase and an unrelated prompt as
long for each, in passes of `dataset.batch_tokens` and `eval.batch_tokens`.

With the extra `plan` (`pip install -e '.[plan]'`) the programs are compiled for the device asked for, a GPU or a slice
of TPUs; otherwise, or with `--cpu`, for as many virtual CPU devices, in float32: bytes of weights and edits are exact
all the same, temporaries of passes through a model in bfloat16 are halved, and say little of what an accelerator's
compiler would take. `all` is what the networks, the weights, the edits before and after a batch, and the hungriest
program take; a program that its compiler refuses for want of memory is `refused`, and those after it are left out.

A program of a network that all edit steps share is compiled once, for so many `steps`. Rows and derivatives of the
steps that wait for one loss after the last are counted beside what runs meanwhile. `run_with` names the flags by which
a run has the mesh planned for: its own default is all devices along `data`.

Of a program that runs in several `passes` over a batch, bytes, collectives (`benchmarks/collectives.py`) and
`compiled_tflop_per_device` are those of one, the largest. `useful_tflop` is what the method needs for all of them,
`seconds_at_peak` what the devices would take for their share of it at their published peak, in the model's dtype or in
float32: a lower bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from benchmarks import command, target
from benchmarks.target import DEVICES, Target
from emsedit_jax.errors import InputError, near
from emsedit_jax.run import cli


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
    goal = target.chosen(own.device, own.devices, cpu=own.cpu)
    target.prepare(goal)
    cli.settle()
    config = cli.read([argv[0], *with_paths(rest)]).config
    from benchmarks import timing  # only now that JAX knows its devices

    timing.report("plan", **planned(config, own, goal))


def with_paths(argv: Sequence[str]) -> list[str]:
    """The flags, with the data's paths that a config may want and nothing here reads."""
    return [*argv, "--config.dataset.train_path=none", "--config.dataset.valid_path=none"]


def scene(config: ml_collections.ConfigDict, mesh: tuple[int, int], sizes: Any, goal: Target) -> Any:
    """The config's programs on a mesh of so many by so many devices, to be compiled (`ahead.Plan`)."""
    from benchmarks import ahead
    from emsedit_jax import sharding
    from emsedit_jax.run import prepare

    lm = lm_config(config.model)
    lm = dataclasses.replace(lm, remat=config.model.remat or lm.remat)
    if goal.compiler == "cpu":
        lm = dataclasses.replace(lm, dtype="float32")
    editor = prepare.editor_of(config, lm)
    learning = prepare.learning_of(config, editor.method, max(config.num_seq, 1)) if editor.method.learned else None
    return ahead.Plan(sharding.mesh_over(*mesh, goal.devices()), editor, learning, sizes, config.editor.token)


def planned(config: ml_collections.ConfigDict, own: argparse.Namespace, goal: Target) -> dict[str, Any]:
    """Everything there is to say of the config on these devices."""
    from benchmarks import ahead
    from benchmarks.batches import Sizes
    from emsedit_jax.lm import params

    started = time.monotonic()
    data, model = shape(config.mesh, goal.count)
    passes = config.dataset.batch_size, config.dataset.batch_tokens, config.eval.batch_tokens
    plan = scene(config, (data, model), Sizes(config.dataset.n_edits, own.prompt, own.answer, *passes), goal)
    shortened = goal.shortened if _short(config) else 1.0
    rows: dict[str, dict[str, Any]] = {}
    needed: list[tuple[Any, float]] = []
    seconds, refused = 0.0, None
    try:
        for name, one in plan.programs():
            temporaries = one.temporary_bytes * (shortened if one.of_model else 1.0)
            needed.append((one, one.needed_bytes - one.temporary_bytes + temporaries))
            took = _seconds_at_peak(one, goal, short=_short(config))
            rows[name] = _row(one, temporaries, took)
            if name.startswith(("prefix", "capture", "shift")):
                seconds += took * (config.editor.iters if name == "capture" else one.steps)
    except ahead.TooLarge as error:
        refused = str(error)
    most = max((alone + plan.waiting_bytes(one) for one, alone in needed), default=0.0)
    weights, memory = plan.weights_bytes * shortened, DEVICES[goal.kind].memory_gb
    held = weights + 2 * plan.deltas_bytes + plan.networks_bytes + most
    return {
        "model": config.model.name_or_path,
        "parameters": params.count(plan.config),
        "devices": f"{goal.count} x {goal.kind}, {data} x {model} (data x model)",
        "run_with": f"--config.mesh.data={data} --config.mesh.model={model}",
        "compiled_for": goal.words,
        "compiled_in_s": round(time.monotonic() - started, 1),
        "not_divided": plan.undivided,
        "gb_per_device": {
            "weights": round(weights / 1e9, 3),
            "edits": round(plan.deltas_bytes / 1e9, 3),
            "networks": round(plan.networks_bytes / 1e9, 3),
            "most of one program": round(most / 1e9, 3),
            "all": round(held / 1e9, 2),
        },
        "memory_gb": memory,
        "fits": refused is None and bool(held < 0.9 * memory * 1e9),
        "refused": refused,
        "seconds_per_edit_at_peak": None if refused else float(f"{seconds / config.dataset.n_edits:.3g}"),
        "programs": rows,
    }


def _short(config: ml_collections.ConfigDict) -> bool:
    """Whether passes through the model are in a shorter format than float32."""
    return config.model.dtype != "float32"


def _row(one: Any, temporaries: float, seconds: float) -> dict[str, Any]:
    """What there is to say of one program."""
    return {
        "passes": one.passes,
        "steps": one.steps,
        "temporary_gb": round(temporaries / 1e9, 3),
        "output_gb": round(one.output_bytes / 1e9, 3),
        "useful_tflop": round(one.useful_flop / 1e12, 3),
        "compiled_tflop_per_device": None if one.flop is None else round(one.flop / 1e12, 3),
        "seconds_at_peak": float(f"{seconds:.3g}"),
        "collectives": one.collectives,
    }


def _seconds_at_peak(one: Any, goal: Target, *, short: bool) -> float:
    """What all devices together would take for a program's useful operations."""
    from benchmarks import peaks

    peak = peaks.peak(DEVICES[goal.kind].name)
    assert peak is not None
    best = peak.bfloat16 if one.of_model and short else peak.float32 or peak.bfloat16 / 6
    return one.useful_flop / (goal.count * best * 1e12)


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
