"""The ridge solve of one edit site in its two forms, against solving the system of the keys' width as it stands.

    python -m benchmarks.solve [--full]

For N rows, keys of width K and values of width 4,096: `dual` (a system of N x N), `primal` (K x K, Cholesky) and
`direct` (`jnp.linalg.solve` of the K x K matrix). Each is compiled first, then timed in turns; of what takes longer
than a few seconds there is one round. `temp_mb` is what the compiled program needs beside arguments and result,
`error` the largest difference from `direct`, over its largest entry. `--full` adds the larger sizes (hours on a CPU).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import command, timing
from emsedit_jax.edit import solve
from emsedit_jax.run import cli

V = 4096
CELLS = (*((k, n) for k in (576, 1536, 4096) for n in (32, 128, 512, 2048)), (14_336, 128))  # (K, N)
FULL = tuple((k, n) for k in (576, 1536, 4096, 8192, 14_336, 16_384) for n in (32, 128, 512, 2048, 8192, 16_384))
REPEATS, LONG = 5, 3.0  # rounds; seconds from which one is enough


def direct(x_nk: jax.Array, y_nv: jax.Array, lam: jax.Array) -> jax.Array:
    """`(X^T X + lambda I)^-1 X^T Y` with the matrix built and factored by pivoting."""
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.solve(x_nk.T @ x_nk + lam * jnp.eye(x_nk.shape[1]), x_nk.T @ y_nv)


def _of_site(form: Callable[..., solve.Solved]) -> Callable[..., jax.Array]:
    def one(x_nk: jax.Array, y_nv: jax.Array, lam: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return form(x_nk[None], y_nv[None], lam[None]).delta_skv[0]

    return one


FORMS = {"dual": _of_site(solve.dual), "primal": _of_site(solve.primal), "direct": direct}


def cell(k: int, n: int, v: int = V) -> dict[str, Any]:
    """One size: seconds, memory and error of each form, and how much faster the chosen one is than `direct`."""
    rng = np.random.default_rng(0)
    x_nk, y_nv = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((n, k), (n, v)))
    given = x_nk, y_nv, jnp.float32(1.0)
    programs = {name: jax.jit(form).lower(*given).compile() for name, form in FORMS.items()}
    chosen = "dual" if solve.chooses_dual(n, k) else "primal"
    found: dict[str, Any] = {"k": k, "n": n, "chosen": chosen}
    first, longest = {}, 0.0
    for name, program in programs.items():
        start = time.perf_counter()
        first[name] = jax.block_until_ready(program(*given))
        longest = max(longest, time.perf_counter() - start)
    scale = float(jnp.max(jnp.abs(first["direct"])))
    errors = {name: float(jnp.max(jnp.abs(one - first["direct"]))) / scale for name, one in first.items()}
    del first
    calls = {name: lambda program=program: program(*given) for name, program in programs.items()}
    seconds = timing.in_turns(calls, 1 if longest > LONG else REPEATS, warm=True)
    for name, program in programs.items():
        memory = program.memory_analysis()
        found[name] = {
            "seconds": round(statistics.median(seconds[name]), 5),
            "temp_mb": None if memory is None else round(memory.temp_size_in_bytes / 2**20, 1),
            "error": float(f"{errors[name]:.1e}"),
        }
    return found | {"direct_over_chosen": timing.ratio(seconds, "direct", chosen)}


def main(argv: Sequence[str]) -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--full", action="store_true", help="the larger sizes too")
    given = parser.parse_args(argv[1:])
    cli.settle()
    cells = []
    for k, n in FULL if given.full else CELLS:
        cells.append(cell(k, n))
        print(f"K {k}, N {n}: {cells[-1]['direct_over_chosen']['median']:.1f} x", file=sys.stderr, flush=True)
    timing.report("solve", v=V, cells=cells)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
