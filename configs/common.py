"""What every config shares: the defaults of `emsedit_jax/run/defaults.py`, and the reader of `--config=FILE:ARGS`."""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from emsedit_jax.errors import InputError, near
from emsedit_jax.run import defaults
from emsedit_jax.run.settings import EDITORS

# What may stand after the colon, with its default; the default's type is the type read. iters=0: the editor's own.
# mode: sequence (edit batches one after the other) or batch (all edits at once).
ARGS: dict[str, str | int] = {"editor": "emsedit", "iters": 0, "mode": "sequence"}
MODES = ("sequence", "batch")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Common defaults. `arg` is the text after the colon of `--config=FILE:editor=rledit,iters=2`.

    Raises:
        InputError: an argument or an editor that is not known.
    """
    args = parse_arg(arg)
    return defaults.config(str(args["editor"]), int(args["iters"]), batch=args["mode"] == "batch")


def eta(known: Mapping[tuple[str, int], float], editor: str, iters: int) -> float:
    """The initial eta that is known for so many edit steps, or for the nearest number of them."""
    steps = [number for name, number in known if name == editor]
    return known[editor, min(steps, key=lambda number: abs(number - iters))]


def parse_arg(arg: str) -> dict[str, str | int]:
    """Reads `key=value,key=value` into `ARGS`' types.

    >>> parse_arg("editor=rledit,iters=2")
    {'editor': 'rledit', 'iters': 2, 'mode': 'sequence'}

    Raises:
        InputError: a part without `=`, an unknown key, a value of another type, or an unknown editor.
    """
    args = dict(ARGS)
    for part in filter(None, (part.strip() for part in arg.split(","))):
        key, given, value = part.partition("=")
        if not given:
            raise InputError(f"config argument {part!r} is not of the form key=value, for instance editor=ultraedit.")
        if key not in ARGS:
            raise InputError(f"unknown config argument {key!r}; known: {', '.join(ARGS)}.{near(key, ARGS)}")
        try:
            args[key] = type(ARGS[key])(value)
        except ValueError:
            raise InputError(f"config argument {part!r}: {key} must be a whole number.") from None
    for name, known in (("editor", tuple(EDITORS)), ("mode", MODES)):
        chosen = str(args[name])
        if chosen not in known:
            raise InputError(f"unknown {name} {chosen!r}; known: {', '.join(known)}.{near(chosen, known)}")
    return args
