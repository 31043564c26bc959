"""What a program consists of, before XLA sees it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend


def products(call: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Every product of a program, those of the programs inside it too."""
    yield from _products(jax.make_jaxpr(call)(*args).jaxpr)


def _products(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _products(inner)
