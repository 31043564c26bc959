"""What a config may hold: the editors' published defaults, and the check of every field before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections

from emsedit_jax.data.records import READERS, parse_rows
from emsedit_jax.data.tokens import TOKEN_RULES
from emsedit_jax.errors import InputError, near

SMALLEST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32, in which networks and shifts are computed
DTYPES = ("auto", "float32", "bfloat16")
TRACKERS = ("wandb", "swanlab")  # beside TensorBoard's files, which every run writes
EMBEDDED_DATASETS = ("worldfacts",)  # come with the package: an empty path means the packaged rows

# The published program's defaults, editor by editor. lr is the initial eta of the shift.
_EVERY = {
    "lr": 1e-6,
    "token": "ans",
    "iters": 1,  # edit steps of each batch
    "grow": False,  # edits by hand: eta is found, not set; docs/METHODS.md, section 11
    "full_curve": False,  # score all edits so far after every batch, not after the last alone
    "rows_at_once": 4096,  # captured token rows that the device holds together; more are streamed through the host
}
_LEARNED = _EVERY | {
    "rank": 1024,  # of the hypernetwork's blocks; where each step has a network, that of step i has rank // (i + 1)
    "n_blocks": 4,
    "meta_lr": 1e-5,  # Adam's
    "max_grad_norm": 1.0,
    "n_epochs": 1,  # passes of training over the same trajectory; 0: networks stay as they are drawn
    "load": "",  # a run's folder, or its hypernet.safetensors: networks trained before, in place of training
}
_STEPWISE = {"max_steps": 1}  # training batches where training is step-wise; -1: as many as the rows fill
EDITORS: dict[str, dict[str, Any]] = {
    "emsedit": _LEARNED | _STEPWISE | {"reg_coef": 0.5, "iters": 2},
    "rledit": _LEARNED | {"loc_coef": 0.6, "reg_coef": 1e-4, "time_decay": 0.95, "back_depth": 10},
    "malmen": _LEARNED | _STEPWISE | {"loc_coef": 0.6},
    "mend": _LEARNED | {"rank": 1920, "n_blocks": 2, "loc_coef": 0.6, "max_steps": 100},
    "ultraedit": _EVERY,
}
EDITORS = {name: {"name": name} | fields for name, fields in EDITORS.items()}

# How networks are trained, beyond the published program's single update. The defaults are the program's choices.
TRAIN: dict[str, Any] = {
    "update_every": "auto",  # optimiser steps: auto (the editor's own), step, batch, trajectory
    "n_trajectories": 1,  # of num_seq batches each, over successive rows
    "schedule": "constant",  # of meta_lr over the optimiser's steps: constant, linear, cosine
    "warmup": 0,  # optimiser steps up to meta_lr
    "weight_decay": 0.0,
    "clip": "running",  # running: the gathered gradient is clipped whenever it grows; update: once, at the update
    "reading": "program",  # of reg_coef: the program squares EMSEdit's and takes no gradient of RLEdit's; paper
    "repeat_shared": False,  # imitate the program: a network shared by all steps is stepped once for each of them
    "holdout": 0,  # batches of training rows kept apart, to tell when to stop
    "patience": 3,  # trajectories without a better score on them before training stops
}


class Field(NamedTuple):
    """What one field must be: a test, and the words that end "must be ..."."""

    holds: Callable[[Any], bool]
    wants: str
    known: tuple[str, ...] = ()  # where only these names will do


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether it is a number that stays what it is as a float32: neither beyond the largest nor taken for zero."""
    if not (_is_int(value) or isinstance(value, float)):
        return False
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def _is_rows(value: Any) -> bool:
    try:
        parse_rows(value)
    except (InputError, AttributeError, TypeError):
        return False
    return True


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
ABOVE_ZERO = Field(lambda value: _is_number(value) and value > 0, "a finite number above 0 that fits float32")
NOT_BELOW_ZERO = Field(lambda value: _is_number(value) and value >= 0, "a finite number of at least 0")
PATTERNS = Field(
    lambda value: isinstance(value, (tuple, list)) and len(value) > 0 and all(SOME_TEXT.holds(item) for item in value),
    "module names or patterns such as model.layers.{11..15}.mlp.gate_proj; several as a quoted tuple, \"('a', 'b')\"",
)
NAMES = Field(
    lambda value: isinstance(value, (tuple, list)) and all(SOME_TEXT.holds(item) for item in value),
    "names, several as a quoted tuple, \"('a', 'b')\"",
)
SOME_TRACKERS = Field(
    lambda value: isinstance(value, (tuple, list)) and all(item in TRACKERS for item in value),
    f"any of {', '.join(TRACKERS)}, several as a quoted tuple, \"('wandb', 'swanlab')\"",
    TRACKERS,
)
ALL_OR_SOME = Field(lambda value: _is_int(value) and (value == -1 or value >= 1), "-1 or at least 1")

FIELDS: dict[str, Field] = {
    "seed": whole(0, 2**32 - 1),
    "num_seq": whole(1),
    "compile_cache": BOOL,
    "track": SOME_TRACKERS,
    "checkpoint.every": whole(0),
    "ledger.keep": BOOL,
    "ledger.snapshot_every": whole(0),
    "ledger.history": whole(0),
    "dataset.name": one_of(tuple(READERS)),
    "dataset.n_edits": whole(1),
    "dataset.hold": whole(0),
    "dataset.batch_size": whole(1),
    "dataset.train_path": TEXT,
    "dataset.valid_path": TEXT,
    "dataset.shuffle": BOOL,
    "dataset.limit": whole(0),
    "model.name_or_path": SOME_TEXT,
    "model.dtype": one_of(DTYPES),
    "model.accept_terms": BOOL,
    "model.remat": BOOL,
    "model.edit_modules": PATTERNS,
    "dataset.rows": Field(_is_rows, "a range of rows such as 4096:8192, 4096: or :100; empty for all"),
    "dataset.train_rows": Field(_is_rows, "a range of rows such as 4096:8192, 4096: or :100; empty for all"),
    "dataset.batch_tokens": whole(1),
    "dataset.on_bad_row": one_of(("error", "skip")),
    "eval.examples": whole(0),
    "eval.max_new_tokens": whole(1),
    "eval.final_only": BOOL,
    "eval.curve_step": whole(1),
    "eval.batch_tokens": whole(1),
    "eval.prefix_store_mb": whole(0),
    "eval.further": BOOL,
    "eval.generated": whole(0),
    "eval.per_criterion": whole(0),
    "eval.fluency": whole(0),
    "eval.fluency_tokens": whole(1),
    "eval.text_path": TEXT,
    "eval.ability_path": TEXT,
    "eval.ability_tasks": NAMES,
    "eval.ability_items": whole(1),
    "eval.ability_shots": whole(0),
    "eval.glue_step": whole(0),
    "mesh.data": ALL_OR_SOME,
    "mesh.model": ALL_OR_SOME,
    "editor.name": one_of(tuple(EDITORS)),
    "editor.rank": whole(1),
    "editor.n_blocks": whole(1),
    "editor.lr": ABOVE_ZERO,
    "editor.meta_lr": ABOVE_ZERO,
    "editor.max_grad_norm": ABOVE_ZERO,
    "editor.token": one_of(TOKEN_RULES),
    "editor.reg_coef": NOT_BELOW_ZERO,
    "editor.iters": whole(1),
    "editor.grow": BOOL,
    "editor.full_curve": BOOL,
    "editor.n_epochs": whole(0),
    "editor.load": TEXT,
    "editor.max_steps": ALL_OR_SOME,
    "editor.loc_coef": NOT_BELOW_ZERO,
    "editor.time_decay": NOT_BELOW_ZERO,
    "editor.back_depth": whole(1),
    "editor.rows_at_once": whole(1),
    "train.update_every": one_of(("auto", "step", "batch", "trajectory")),
    "train.n_trajectories": whole(1),
    "train.schedule": one_of(("constant", "linear", "cosine")),
    "train.warmup": whole(0),
    "train.weight_decay": NOT_BELOW_ZERO,
    "train.clip": one_of(("running", "update")),
    "train.reading": one_of(("program", "paper")),
    "train.repeat_shared": BOOL,
    "train.holdout": whole(0),
    "train.patience": whole(1),
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
    _check_ability(found)
    _check_history(found)


def fault(name: str, value: Any) -> str:
    """What to say when the field `name` holds `value` and may not."""
    field = FIELDS[name]
    return f"--config.{name}={value}: must be {field.wants}.{near(str(value), field.known)}"


def _check_paths(found: Mapping[str, Any]) -> None:
    learns = "meta_lr" in EDITORS[found["editor.name"]]
    trains = learns and not found["editor.load"] and found["editor.n_epochs"] > 0
    if found["dataset.name"] in EMBEDDED_DATASETS:
        return
    for name in ("dataset.train_path", "dataset.valid_path") if trains else ("dataset.valid_path",):
        if not found[name]:
            raise InputError(
                f"--config.{name} is empty: the data set {found['dataset.name']} does not come with the package, "
                "so name its file."
            )


def _check_ability(found: Mapping[str, Any]) -> None:
    """General ability is asked for by a path; what else is said of it must not be said in vain."""
    if found["eval.ability_path"]:
        for name, value in (("further", False), ("final_only", True)):
            if found[f"eval.{name}"] is value:
                needs = f"--config.eval.{name}={str(not value).lower()}"
                raise InputError(f"--config.eval.ability_path needs {needs}: add that, or leave the path out.")
    for name in ("glue_step", "ability_tasks", "ability_shots"):
        if found[f"eval.{name}"] and not found["eval.ability_path"]:
            raise InputError(f"--config.eval.{name} needs --config.eval.ability_path, the folder of the tasks' files.")


def _check_history(found: Mapping[str, Any]) -> None:
    """Files go for a copy of all edits that stands for them, once no checkpoint is behind it."""
    for name in ("ledger.snapshot_every", "checkpoint.every") if found["ledger.history"] else ():
        if not found[name]:
            raise InputError(f"--config.ledger.history needs --config.{name} of 1 or more: add that, or leave it out.")


def flatten(config: Mapping[str, Any] | ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a nested config as ("dataset.n_edits", value) pairs, in its order."""
    for name, value in config.items():
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
