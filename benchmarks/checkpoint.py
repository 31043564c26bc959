"""What saving its state costs a run: seconds, bytes, and the share of the run's wall time.

    python -m benchmarks.checkpoint [--config=configs/quickstart.py]

Any config and flags of `launch.py`, for an editor with networks; without a config the quickstart's. Training goes 12
times over the facts and holds some out, so that the state is the heaviest there is: networks, what the optimiser knows
of them, gathered gradients, the best networks so far. The run is made three times in one process, each time in a folder
of its own: once so that its programs are compiled, then with the `checkpoint.every` of the config, then with 1.

`saving_s`: from the arrays on the device, once they are computed, to a checkpoint that is sealed and the one before
the last removed. `largest_mb`: of a checkpoint's files. `share`: of the seconds that the whole run took, with the
loading of the model.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import ml_collections

from benchmarks import command, timing
from emsedit_jax.run import checkpoint, cli
from emsedit_jax.run import main as program
from emsedit_jax.run.keeper import Keeper

CONFIG = "--config=configs/quickstart.py"
PASSES = 12
TRAINING = ("--config.train.holdout=1", f"--config.editor.n_epochs={PASSES}", f"--config.train.patience={PASSES}")


class Spent:
    """What was spent on saving so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sizes: list[int] = []  # bytes of each checkpoint

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, its seconds added up; what was still being computed is no part of it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            jax.block_until_ready((args, kwargs))
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed

    def sized(self, digests: Callable[[Path], dict[str, str]]) -> Callable[[Path], dict[str, str]]:
        """What seals a checkpoint, whose bytes are noted."""

        def sized(folder: Path) -> dict[str, str]:
            found = digests(folder)
            self.sizes.append(sum((folder / name).stat().st_size for name in found))
            return found

        return sized


@contextlib.contextmanager
def watched() -> Iterator[Spent]:
    """Runs inside of the block are watched as they save."""
    spent = Spent()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(checkpoint, "digests", spent.sized(checkpoint.digests)))
        for where, name in ((checkpoint, "flat"), (Keeper, "save")):
            stack.enter_context(mock.patch.object(where, name, spent.timed(getattr(where, name))))
        yield spent


def measure(config: ml_collections.ConfigDict, every: int, folder: Path) -> dict[str, Any]:
    """A whole run that saves its state after every so many batches."""
    given = ml_collections.ConfigDict(config.to_dict())
    given.checkpoint.every = every
    start = time.perf_counter()
    with watched() as spent:
        program.run(given.lock(), folder, "train")
    seconds = time.perf_counter() - start
    told = {"every": every, "checkpoints": len(spent.sizes), "saving_s": round(spent.seconds, 3)}
    told |= {"largest_mb": round(max(spent.sizes, default=0) / 1e6, 2), "run_s": round(seconds, 2)}
    return told | {"share": round(spent.seconds / seconds, 5)}


def main(argv: Sequence[str]) -> None:
    config = [] if any(flag.partition("=")[0] == "--config" for flag in argv) else [CONFIG]
    _, given = command.read([argv[0], *config, *argv[1:], *TRAINING], command.parser(__doc__))
    runs = []
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        for number, every in enumerate((0, given.config.checkpoint.every, 1)):  # the first one compiles
            runs.append(measure(given.config, every, Path(folder) / str(number)))
    timing.report("checkpoint", editor=given.config.editor.name, passes=PASSES, runs=runs[1:])


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
