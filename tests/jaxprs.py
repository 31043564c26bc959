"""What a program consists of, before XLA sees it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend


def products(call: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Every product of a program, those of the programs inside it too."""
    return equations("dot_general", call, *args)


def equations(name: str, call: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Every equation of this primitive of a program, those of the programs inside it too."""
    yield from _equations(name, jax.make_jaxpr(call)(*args).jaxpr)


def _equations(name: str, jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(name, inner)
