"""The facts of a run: read by the config's words, checked, drawn into batches, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections

from emsedit_jax import sharding
from emsedit_jax.data import batching, checks, embedded, records, tables
from emsedit_jax.data.batching import EditPlan
from emsedit_jax.data.faults import by_row
from emsedit_jax.data.records import EditRecord, Role
from emsedit_jax.errors import InputError
from emsedit_jax.lm.model import LM
from emsedit_jax.meta.trajectory import Learning
from emsedit_jax.run import slices

ROWS_FIELD = {"train": "train_rows", "eval": "rows"}  # of config.dataset, by role
_READ_FOR: dict[Role, str] = {"train": "to train on", "eval": "to edit"}
_DRAWS = {"train": 0, "eval": 1}  # training and editing draw apart


class Facts(NamedTuple):
    """The facts of one file, and its bad rows that are left out, one text each."""

    path: str | Path
    records: list[EditRecord]
    skipped: tuple[str, ...]
    name: str  # of the file, or of the data set on the hub with the split that is read


Found = Mapping[Role, Facts]


def read(config: ml_collections.ConfigDict, roles: Sequence[Role]) -> dict[Role, Facts]:
    """The facts to train on and to edit. Raises: InputError with what is wrong with all of the files."""
    found, wrong = {}, []
    for role in roles:
        try:
            found[role] = _read(config, role)
        except InputError as error:
            wrong.append(str(error))
    _refuse(wrong)
    return found


def usable(found: Found, lm: LM) -> dict[Role, Facts]:
    """The facts without the rows that the model cannot take, which are told among those that are skipped."""
    left = {}
    for role, facts in found.items():
        good, faults = checks.usable(facts.records, slices.shared(lm.tokenizer), lm.config.max_length)
        left[role] = facts._replace(records=good, skipped=(*facts.skipped, *by_row(faults)))
    return left


def plans(config: ml_collections.ConfigDict, found: Found, lm: LM, batches: Mapping[Role, int]) -> dict[Role, EditPlan]:
    """So many batches of each role. Raises: InputError with all that cannot be tokenised, of whichever file."""
    dataset, planned, wrong = config.dataset, {}, []
    for role, facts in found.items():
        try:
            planned[role] = batching.plan_tasks(
                facts.records,
                slices.shared(lm.tokenizer),
                n_edits=dataset.n_edits,
                num_batches=batches[role],
                batch_size=dataset.batch_size,
                token=config.editor.token,
                seed=_seed(config, role),
                max_tokens=lm.config.max_length,
                pass_tokens=dataset.batch_tokens,
                parts=sharding.size(sharding.DATA),
                lanes=sharding.row_lanes(),
            )
        except InputError as error:
            wrong.append(str(error))
    _refuse(wrong)
    return planned


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise InputError(" ".join(dict.fromkeys(wrong)))


def _read(config: ml_collections.ConfigDict, role: Role) -> Facts:
    dataset, field, path = config.dataset, ROWS_FIELD[role], path_of(config, role)
    rows = records.parse_rows(dataset[field])
    chosen = {"role": role, "limit": dataset.limit or None, "rows": rows, "seed": config.seed}
    try:
        found = records.read(dataset.name, path, **chosen)
        if found.faults and dataset.on_bad_row == "error":
            raise records.refusal(dataset.name, path, found)
    except InputError as error:
        asked = f" Rows were chosen by --config.dataset.{field}={dataset[field]}." if rows else ""
        raise InputError(f"{error}{asked}") from error
    return Facts(path, found.records, by_row(found.faults, f"{found.name} "), found.name)


def path_of(config: ml_collections.ConfigDict, role: Role) -> str | Path:
    """Where the facts are: by the config, or in the package."""
    path = config.dataset.train_path if role == "train" else config.dataset.valid_path
    return embedded.path(role) if not path and config.dataset.name == "worldfacts" else path


def _seed(config: ml_collections.ConfigDict, role: Role) -> int | None:
    return 2 * config.seed + _DRAWS[role] if config.dataset.shuffle else None


# ---------------------------------------------------------------------------------------------- checks


def check_enough(
    config: ml_collections.ConfigDict,
    role: Role,
    facts: Facts,
    batches: int,
    n_trajectories: int = 1,
    holdout: int = 0,
) -> None:
    """Raises InputError where the file holds fewer facts than are asked for, with every field that asks for them."""
    dataset = config.dataset
    wanted = (batches * n_trajectories + holdout) * dataset.n_edits
    if wanted <= len(facts.records):
        return
    sequence = batches == config.num_seq  # else step-wise training, which takes what there is, but one batch at least
    asked, flags = (f"num_seq={batches}", ["num_seq"]) if sequence else (f"{batches} training batch", [])
    if n_trajectories > 1:
        asked, flags = f"{asked} x n_trajectories={n_trajectories}", [*flags, "train.n_trajectories"]
    if holdout:
        asked, flags = f"({asked} + holdout={holdout})", [*flags, "train.holdout"]
    chosen = [f"--config.dataset.{name}={dataset[name]}" for name in ("limit", ROWS_FIELD[role]) if dataset[name]]
    if facts.skipped:
        chosen.append(f"{_bad_rows(facts)} left out, the first: {facts.skipped[0]}")
    limited = f" ({', '.join(chosen)})" if chosen else ""
    lower = " or ".join(f"--config.{name}" for name in (*flags, "dataset.n_edits"))
    raise InputError(
        f"{facts.path}: {asked} x n_edits={dataset.n_edits} = {wanted} facts are needed, but there are "
        f"{len(facts.records)}{limited}; lower {lower}, or give more rows."
    )


def check_lessons(config: ml_collections.ConfigDict, facts: Facts, batches: int, learning: Learning) -> None:
    """Raises InputError where some training batch has no prompts of a kind that the editor learns from."""
    drawn = batching.draw(facts.records, config.dataset.n_edits, batches, _seed(config, "train")).tolist()
    facts_of = [[facts.records[row] for row in batch] for batch in drawn]
    untrained = "edit without training: --config.editor.n_epochs=0"
    if first := checks.lacking(facts_of, "equiv"):
        raise InputError(
            f"{facts.path}: no fact of the training batch of {first.row} has a paraphrase, which {config.editor.name} "
            f"learns from; give other rows to train on, or {untrained}."
        )
    if learning.loc_coef and (first := checks.lacking(facts_of, "unrel")):
        raise InputError(
            f"{facts.path}: no fact of the training batch of {first.row} has an unrelated prompt, which "
            f"{config.editor.name} learns not to move; set --config.editor.loc_coef=0, give other rows to train on, or "
            f"{untrained}."
        )


# ---------------------------------------------------------------------------------------------- words


def line(config: ml_collections.ConfigDict, found: Found, valid: EditPlan, train: EditPlan | None) -> str:
    """One line about the facts: how many, which were left out, and what there is to know before trusting scores."""
    n_edits, held = config.dataset.n_edits, config.train.holdout
    batches = "batches" if len(valid) > 1 else "batch"
    parts = [
        f"{len(valid) * n_edits} of {len(found['eval'].records)} facts to edit in {len(valid)} {batches} of {n_edits}"
    ]
    if train is not None:
        apart = [f"{held * n_edits} to try it out on"] if held else []
        parts = [f"{len(train) * n_edits} of {len(found['train'].records)} to train on", *apart, *parts]
    hub = {role: facts for role, facts in found.items() if tables.is_hub(facts.path)}
    splits = [f"rows {_READ_FOR[role]} are those of {facts.name}" for role, facts in hub.items()]
    left_out = [f"{_bad_rows(facts)} of {facts.path} left out" for facts in found.values() if facts.skipped]
    borrowed = [*checks.borrowed(drawn(valid))]
    borrowed += [f"of those to train on, {words}" for words in checks.borrowed(drawn(train) if train else [])]
    return "; ".join([f"{config.dataset.name}: {', '.join(parts)}", *splits, *left_out, *borrowed])


def drawn(plan: EditPlan) -> list[EditRecord]:
    """All records of a plan, batch after batch."""
    return [record for j in range(len(plan)) for record in plan.records(j)]


def _bad_rows(facts: Facts) -> str:
    return f"{len(facts.skipped)} bad row{'s' * (len(facts.skipped) > 1)}"


def contradictions(conflicts: Sequence[str]) -> str:
    """One line about facts that cannot all hold."""
    more = f", and {len(conflicts) - 1} more such" if len(conflicts) > 1 else ""
    return f"{conflicts[0]}{more}: only the one that is edited last can hold; summary.json lists them"
