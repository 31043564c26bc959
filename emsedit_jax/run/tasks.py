"""The tasks of lm-evaluation-harness: which of them are meant, and what becomes of their results."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emsedit_jax.errors import InputError, near
from emsedit_jax.run import lock, storing
from emsedit_jax.run.workdir import Workdir

BOOTSTRAPS = 100  # draws for the standard errors of scores that have no formula for them
KEPT = (
    "results",
    "groups",
    "group_subtasks",
    "n-samples",
    "n-shot",
    "versions",
    "higher_is_better",
    "configs",
    "config",
)


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line asks for; exits with what is wrong with it."""
    flags = argparse.ArgumentParser(
        "python -m emsedit_jax.harness",
        description="Runs tasks of lm-evaluation-harness on the edited model of a run.",
        allow_abbrev=False,
    )
    flags.add_argument("--workdir", required=True, metavar="RUN", help="a run that has saved edits")
    flags.add_argument("--tasks", required=True, metavar="TASK,...", help="tasks, groups or patterns of the harness")
    flags.add_argument("--include_path", metavar="FOLDER", help="where your own tasks' YAML lies")
    flags.add_argument("--unedited", action="store_true", help="ask the model without its edits")
    flags.add_argument("--limit", type=int, metavar="N", help="so many items of each task")
    flags.add_argument("--num_fewshot", type=int, metavar="N", help="answered items in front")
    flags.add_argument("--apply_chat_template", action="store_true", help="as the model's tokenizer has it")
    flags.add_argument("--max_length", type=int, metavar="N", help="tokens of a prompt with what follows")
    flags.add_argument("--batch_tokens", type=int, metavar="N", help="tokens of a pass, about")
    given = flags.parse_args(list(argv[1:]))
    for name in ("limit", "max_length", "batch_tokens"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            flags.error(f"--{name}={getattr(given, name)}: must be a whole number of at least 1.")
    return given


def chosen(wanted: Sequence[str], include_path: str | None) -> tuple[list[str], Any]:
    """(names of tasks, an index that has them); the harness's own tasks, many thousands, only where they are needed.

    Raises InputError for a name that neither has.
    """
    from lm_eval.tasks import TaskManager  # takes seconds

    if not wanted:
        raise InputError("--tasks is empty: name one of the harness's tasks, or several with commas.")
    if include_path is not None and not Path(include_path).is_dir():
        raise InputError(f"--include_path={include_path}: there is no such folder; name the one with your tasks' YAML.")
    index = TaskManager(include_path=include_path, include_defaults=include_path is None)
    if include_path is not None and not all(index.match_tasks([name]) for name in wanted):
        index = TaskManager(include_path=include_path)
    for name in wanted:
        if not index.match_tasks([name]):
            raise InputError(f"--tasks={name}: there is no such task.{near(name, index.all_tasks)}")
    return list(dict.fromkeys(one for name in wanted for one in index.match_tasks([name]))), index


def evaluate(model: Any, names: list[str], index: Any, folder: Workdir, given: argparse.Namespace) -> None:
    """Asks the model, prints the harness's table and writes the results beside the run's own.

    Raises InputError where the workdir cannot be written.
    """
    import lm_eval
    from lm_eval.utils import handle_non_serializable, make_table

    found: Any = lm_eval.simple_evaluate(
        model=model,
        tasks=list(names),
        task_manager=index,
        limit=given.limit,
        num_fewshot=given.num_fewshot,
        apply_chat_template=given.apply_chat_template,
        bootstrap_iters=BOOTSTRAPS,
        log_samples=False,
    )
    print(make_table(found))
    if found.get("groups"):
        print(make_table(found, "groups"))
    kept = {name: found[name] for name in KEPT if name in found}
    path = folder.harness / f"{'unedited' if given.unedited else 'edited'}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    with lock.held(folder.path), storing.writing(path):
        folder.harness.mkdir(exist_ok=True)
        storing.write_json(path, json.loads(json.dumps(kept, default=handle_non_serializable)))
    print(f"results in {path}", flush=True)
