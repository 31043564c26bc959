"""Knowledge editing of large language models in JAX: EMSEdit and its family. `README.md` shows the way in.

    import emsedit_jax
    lm = emsedit_jax.load_lm("smollm2-135m")
    lm.generate(["The capital of France is"])

Nothing heavy is imported before it is asked for, so that a mistake in a flag is answered at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsedit_jax.errors import InputError
    from emsedit_jax.lm.model import LM, load_lm
    from emsedit_jax.session.session import EditSession

DOORS = {
    "EditSession": "emsedit_jax.session.session",
    "InputError": "emsedit_jax.errors",
    "load_lm": "emsedit_jax.lm.model",
    "LM": "emsedit_jax.lm.model",
}
__all__ = ["LM", "EditSession", "InputError", "load_lm"]


def __getattr__(name: str) -> Any:
    if name not in DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *DOORS])
