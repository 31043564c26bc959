"""Products inside of loops, which XLA's own count of a program takes once, however often they run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend


def uncounted(call: Callable[..., Any], *args: Any) -> float:
    """Operations of the products in a program's loops, but for the first time round."""
    return _uncounted(jax.make_jaxpr(call)(*args).jaxpr, 0)


def _uncounted(jaxpr: Any, again: int) -> float:
    """With everything in it run so many times more than XLA thinks."""
    total = 0.0
    for equation in jaxpr.eqns:
        length = equation.params["length"] if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            total += again * _flop(equation)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            total += _uncounted(inner, (again + 1) * length - 1)
    return total


def _flop(product: Any) -> float:
    (summed, _), _ = product.params["dimension_numbers"]
    left, out = product.invars[0].aval, product.outvars[0].aval
    return 2.0 * out.size * math.prod(left.shape[axis] for axis in summed)
