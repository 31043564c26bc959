"""Edits a language model's facts: `python launch.py --config=configs/quickstart.py`; more with `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emsedit_jax.run import cli, usage


def main(argv: Sequence[str]) -> None:
    if cli.asks_for_help(argv):
        print(usage.USAGE)
        return
    command = cli.read(argv)
    cli.settle(command.config.get("num_seq") or 0)
    if command.runs:  # files alone; no model, no devices
        from emsedit_jax.run import files_alone

        files_alone.run(command)
        return

    # only now, so that a mistake in a flag is answered at once
    from emsedit_jax.run import cluster, resources
    from emsedit_jax.run import main as program

    if command.cluster is not None:
        cluster.join(cluster.Cluster(*command.cluster))
    print(f"devices  {resources.devices_line()}", flush=True)
    if command.mode in ("edit", "generate", "serve") or not command.config:
        from emsedit_jax.session import commands

        commands.run(command)
        return
    program.run(command.config, command.workdir, command.mode, command.to, command.form, command.mesh == {})


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
