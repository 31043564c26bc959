"""What each device is left with as there are more of them: operations and bytes, counted in compiled programs.

    python -m benchmarks.scaling --config=configs/zsre_llama.py

Capture, solve, and the whole shift (network, solve, and the edits with it in them) of one edit batch, compiled for 1,
2, 4 and 8 virtual CPU devices in float32, on meshes that favour `data`, on those that favour `model`, and on those in
between. `share` is what a device has of one device's operations or bytes (results and temporaries), times their
number: 1 where the work is divided without a rest. Edits lie over `model` and are whole along `data`, as each of its
devices needs all of them for its prompts, so a shift's bytes fall with `model` alone. Nothing is run, no weights are
there; sizes as in `benchmarks.plan`, whose flags
`--prompt` and `--answer` are taken too. `--facts` are so many by default that every device has prompts of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import command, plan
from emsedit_jax.run import cli

MESHES = ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (2, 4), (1, 8))
MOST = 8
FACTS = 64


def main(argv: Sequence[str]) -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of a prompt, on average (%(default)s)")
    parser.add_argument("--answer", type=int, default=4, help="tokens of an answer, on average (%(default)s)")
    parser.add_argument("--facts", type=int, default=FACTS, help="of the edit batch (%(default)s)")
    own, rest = parser.parse_known_args(list(argv[1:]))
    plan.prepare_jax(MOST, gpu=False)
    cli.settle()
    config = cli.read([argv[0], *plan.with_paths(rest)]).config
    from benchmarks import ahead, timing

    sizes = ahead.Sizes(own.facts, own.prompt, own.answer)
    alone: dict[str, Any] = {}
    rows = []
    for data, model in MESHES:
        scene = plan.scene(config, (data, model), sizes, gpu=False)
        row: dict[str, Any] = {"data": data, "model": model}
        for name, one in scene.programs(("prefix", "capture", "solve", "shift")):
            if name == "prefix":
                continue
            found = {"gflop": (one.flop or 0.0) / 1e9, "mb": (one.temporary_bytes + one.output_bytes) / 1e6}
            alone.setdefault(name, found)
            row[name] = {
                key: {"device": round(value, 1), "share": round(data * model * value / alone[name][key], 3)}
                for key, value in found.items()
            }
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    timing.report("scaling", model=config.model.name_or_path, facts=own.facts, meshes=rows)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
