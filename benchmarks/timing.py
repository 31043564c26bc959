"""Fair timing: calls are timed in turns, so that a slow minute of the machine strikes all of them alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from emsedit_jax.run import resources

Seconds = dict[str, list[float]]  # call -> seconds of each round


def in_turns(
    calls: Mapping[str, Callable[[], Any]], repeats: int, *, warm: bool = False, pause_s: float = 0.0
) -> Seconds:
    """Seconds of each call in each of `repeats` rounds, after one round that is not counted unless they are `warm`.

    A call is over when everything that it returns is computed. `pause_s` before each lets the threads of another
    library go to sleep, which wait for more work on the same cores.
    """
    found: Seconds = {name: [] for name in calls}
    for number in range(1 if warm else 0, repeats + 1):
        for name, call in calls.items():
            time.sleep(pause_s)
            start = time.perf_counter()
            jax.block_until_ready(call())
            if number:
                found[name].append(time.perf_counter() - start)
    return found


def ratio(seconds: Seconds, slow: str, fast: str) -> dict[str, float]:
    """How many times longer one call takes than the other: median and quartiles of the rounds' own ratios."""
    low, middle, high = np.percentile(np.divide(seconds[slow], seconds[fast]), (25, 50, 75)).tolist()
    return {"median": round(middle, 3), "lower_quartile": round(low, 3), "upper_quartile": round(high, 3)}


def product(size: int = 2048, dtype: str = "float32") -> tuple[Callable[[], jax.Array], float]:
    """(a product of two square matrices, its FLOP): what the machine can do at best."""
    one, other = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    precision = "highest" if dtype == "float32" else None  # no TF32
    multiply = jax.jit(lambda one, other: jax.numpy.matmul(one, other, precision=precision))
    return lambda: multiply(one, other), 2.0 * size**3


def report(name: str, **found: Any) -> None:
    """Prints what was found as JSON, with the device and the versions it was found on."""
    print(json.dumps({"benchmark": name, **resources.describe(), **found}, indent=2))
