"""What each device is left with as there are more of them: operations and bytes, counted in compiled programs.

    python -m benchmarks.scaling --config=configs/zsre_llama.py

Capture, solve, and the whole shift (network, solve, and the edits with it in them) of one edit batch, compiled for 1,
2, 4 and 8 virtual CPU devices in float32, on meshes that favour `data`, on those that favour `model`, and on those in
between. `share` is what a device has of one device's operations or bytes (results and temporaries), times their
number: 1 where the work is divided without a rest. Edits lie over `model` and are whole along `data`, as each of its
devices needs all of them for its prompts, so a shift's bytes fall with `model` alone. What a program is given is not
counted: weights and edits lie over `model` alone. XLA counts a loop once; the products of the other times round are
counted in the program before it is divided, and by assumption divided evenly. Nothing is run, no weights are there;
sizes as in `benchmarks.plan`, whose flags `--prompt` and `--answer` are taken too, in a single pass. `--facts` are so
many by default that every device has prompts of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from benchmarks import command, plan, target
from benchmarks.target import Target
from emsedit_jax.run import cli

MESHES = ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (2, 4), (1, 8))
MOST = 8
CPUS = Target("h100", MOST, "cpu")
FACTS = 64


def main(argv: Sequence[str]) -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of a prompt, on average (%(default)s)")
    parser.add_argument("--answer", type=int, default=4, help="tokens of an answer, on average (%(default)s)")
    parser.add_argument("--facts", type=int, default=FACTS, help="of the edit batch (%(default)s)")
    own, rest = parser.parse_known_args(list(argv[1:]))
    target.prepare(CPUS)
    cli.settle()
    config = cli.read([argv[0], *plan.with_paths(rest)]).config
    from benchmarks import timing

    found = []
    for row in rows(config, own.facts, own.prompt, own.answer):
        found.append(row)
        print(row, file=sys.stderr, flush=True)
    timing.report("scaling", model=config.model.name_or_path, facts=own.facts, meshes=found)


def rows(
    config: ml_collections.ConfigDict, facts: int = FACTS, prompt: int = 16, answer: int = 4
) -> Iterator[dict[str, Any]]:
    """What each device has on every mesh, of operations and of bytes, and its share. Once JAX has `MOST` devices."""
    from benchmarks.batches import Sizes

    alone: dict[str, Any] = {}
    for data, model in MESHES:
        scene = plan.scene(config, (data, model), Sizes(facts, prompt, answer), CPUS)
        row: dict[str, Any] = {"data": data, "model": model}
        for name, one in scene.programs(("capture", "solve", "shift")):
            if name == "prefix":
                continue
            found = {"gflop": (one.flop or 0.0) / 1e9, "mb": (one.temporary_bytes + one.output_bytes) / 1e6}
            alone.setdefault(name, found)
            row[name] = {
                key: {"device": round(value, 1), "share": round(data * model * value / alone[name][key], 3)}
                for key, value in found.items()
            }
        yield row


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
