"""What a config may hold: the editors' published defaults, and the check of every field before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.data.records import READERS
from emsedit_jax.errors import InputError, near

TOKENS = ("ans", "all", "ans_interval", "all_interval")  # which token rows are captured
DTYPES = ("auto", "float32", "bfloat16")
EMBEDDED_DATASETS = ("worldfacts",)  # come with the package: an empty path means the packaged rows

# The published program's defaults. lr is the initial eta of the shift.
EDITORS: dict[str, dict[str, Any]] = {
    "emsedit": {
        "name": "emsedit",
        "rank": 1024,  # of the hypernetwork's blocks; step i has rank // (i + 1)
        "n_blocks": 4,
        "lr": 1e-6,
        "meta_lr": 1e-5,  # Adam's
        "max_grad_norm": 1.0,
        "token": "ans",
        "reg_coef": 0.5,
        "iters": 2,  # edit steps of each batch
        "full_curve": False,  # score all edits so far after every batch, not after the last alone
    },
    "ultraedit": {
        "name": "ultraedit",
        "lr": 1e-6,
        "token": "ans",
        "iters": 1,
        "full_curve": False,
    },
}


class Field(NamedTuple):
    """What one field must be: a test, and the words that end "must be ..."."""

    holds: Callable[[Any], bool]
    wants: str
    known: tuple[str, ...] = ()  # where only these names will do


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_int(value) or isinstance(value, float)) and math.isfinite(value)


def whole(least: int, most: int | None = None) -> Field:
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    return Field(
        lambda value: _is_int(value) and value >= least and (most is None or value <= most), f"a whole number {bounds}"
    )


def one_of(known: tuple[str, ...]) -> Field:
    return Field(lambda value: isinstance(value, str) and value in known, f"one of {', '.join(known)}", known)


BOOL = Field(lambda value: isinstance(value, bool), "true or false")
TEXT = Field(lambda value: isinstance(value, str), "text")
SOME_TEXT = Field(lambda value: isinstance(value, str) and value.strip() != "", "text that is not empty")
ABOVE_ZERO = Field(lambda value: _is_number(value) and value > 0, "a finite number above 0")
NOT_BELOW_ZERO = Field(lambda value: _is_number(value) and value >= 0, "a finite number of at least 0")
PATTERNS = Field(
    lambda value: isinstance(value, (tuple, list)) and len(value) > 0 and all(SOME_TEXT.holds(item) for item in value),
    "module names or patterns such as model.layers.{11..15}.mlp.gate_proj; several as a quoted tuple, \"('a', 'b')\"",
)

FIELDS: dict[str, Field] = {
    "seed": whole(0, 2**32 - 1),
    "num_seq": whole(1),
    "compile_cache": BOOL,
    "dataset.name": one_of(tuple(READERS)),
    "dataset.n_edits": whole(1),
    "dataset.batch_size": whole(1),
    "dataset.train_path": TEXT,
    "dataset.valid_path": TEXT,
    "dataset.shuffle": BOOL,
    "dataset.limit": whole(0),
    "model.name_or_path": SOME_TEXT,
    "model.dtype": one_of(DTYPES),
    "model.edit_modules": PATTERNS,
    "eval.examples": whole(0),
    "eval.max_new_tokens": whole(1),
    "eval.batch_tokens": whole(1),
    "eval.prefix_store_mb": whole(0),
    "editor.name": one_of(tuple(EDITORS)),
    "editor.rank": whole(1),
    "editor.n_blocks": whole(1),
    "editor.lr": ABOVE_ZERO,
    "editor.meta_lr": ABOVE_ZERO,
    "editor.max_grad_norm": ABOVE_ZERO,
    "editor.token": one_of(TOKENS),
    "editor.reg_coef": NOT_BELOW_ZERO,
    "editor.iters": whole(1),
    "editor.full_curve": BOOL,
}


def check(config: ml_collections.ConfigDict) -> None:
    """Checks names, types and ranges of all fields, cheaply: no file is opened and no model is loaded.

    Raises:
        InputError: the first field at fault, named as the flag that sets it.
    """
    found = dict(flatten(config))
    for name, value in found.items():
        if name not in FIELDS:
            raise InputError(f"--config.{name}: there is no such field.{near(name, FIELDS)}")
        if not FIELDS[name].holds(value):
            raise InputError(fault(name, value))

    for name in FIELDS:
        if name not in found and not name.startswith("editor."):
            raise InputError(f"--config.{name} is missing: it must be {FIELDS[name].wants}.")
    if "editor.name" not in found:
        raise InputError(f"--config.editor.name is missing: it must be {FIELDS['editor.name'].wants}.")
    editor = found["editor.name"]
    for name in EDITORS[editor]:
        if f"editor.{name}" not in found:
            raise InputError(
                f"--config.editor.{name} is missing, which {editor} needs; "
                f"choose the editor as --config=FILE:editor={editor}, which sets all its fields."
            )
    _check_paths(found)


def fault(name: str, value: Any) -> str:
    """What to say when the field `name` holds `value` and may not."""
    field = FIELDS[name]
    return f"--config.{name}={value}: must be {field.wants}.{near(str(value), field.known)}"


def _check_paths(found: Mapping[str, Any]) -> None:
    trains = "meta_lr" in EDITORS[found["editor.name"]]
    if found["dataset.name"] in EMBEDDED_DATASETS:
        return
    for name in ("dataset.train_path", "dataset.valid_path") if trains else ("dataset.valid_path",):
        if not found[name]:
            raise InputError(
                f"--config.{name} is empty: the data set {found['dataset.name']} does not come with the package, "
                "so name its file."
            )


def flatten(config: Mapping[str, Any] | ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a nested config as ("dataset.n_edits", value) pairs, in its order."""
    for name, value in config.items():
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
