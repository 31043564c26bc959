"""The command line of a benchmark that takes any config and flags of `launch.py`, and perhaps a flag of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from emsedit_jax.run import cli
from emsedit_jax.run.command import Command


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Prints the benchmark's own docstring for `--help`; own flags are added to it."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def read(argv: Sequence[str], own: argparse.ArgumentParser) -> tuple[argparse.Namespace, Command]:
    """(values of the benchmark's own flags, what `launch.py` would make of the others)."""
    cli.settle()
    values, rest = own.parse_known_args(list(argv[1:]))
    return values, cli.read([argv[0], *rest])
