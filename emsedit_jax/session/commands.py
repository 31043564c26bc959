"""`--mode=edit`, `generate` and `serve`: a person's own facts written, an edited model asked, and a page for both."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections

from emsedit_jax.data.cues import EditRecord
from emsedit_jax.errors import InputError
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import cluster, defaults, settings, uneven, workdir
from emsedit_jax.run.command import Command
from emsedit_jax.run.prepare import say, say_uneven
from emsedit_jax.run.report import one_line
from emsedit_jax.session import files, given, ready
from emsedit_jax.session.session import EditSession


def run(command: Command) -> None:
    """Does what the mode says. Raises InputError where that cannot be done."""
    if command.mode == "edit":
        run_edit(command)
        return
    with _mesh(command):
        if command.mode == "generate":
            run_generate(command.workdir, command.prompts)
        elif command.mode == "eval":
            print(_loaded(command.workdir).score())
        else:
            from emsedit_jax.session import serve

            serve.run(command.door, command.workdir, lambda: _opened(command))


@contextlib.contextmanager
def _mesh(command: Command) -> Iterator[None]:
    """Puts the config's mesh in force, or the folder's, or that of the flags; says it where there are several devices.

    Raises InputError where there is no such mesh, and for a folder that holds no edits.
    """
    config = command.config
    if not config:
        there = workdir.is_taken(command.workdir) or command.mode in ("generate", "eval")
        config = workdir.saved_config(command.workdir) if there else defaults.config()
        settings.check(config)
    axes = config.mesh.to_dict() | dict(command.mesh or {})
    with cluster.mesh_of(axes["data"], axes["model"], saved=command.mesh == {}) as words:
        if words:
            say("mesh", words)
        yield


def run_edit(command: Command) -> None:
    """Writes the facts of a file into a new session, or into the one in the workdir, and shows what came of each.

    A new one has the command's config, or what is ready for the default model. With `yes` it goes on without asking
    where edits lie there already.

    Raises InputError for facts that are not in order, and where the answer is no.
    """
    path = command.workdir
    wanted = given.read(command.facts, "eval")
    given.check_agree(wanted)
    if workdir.is_taken(path) and not workdir.Workdir(path).session.exists():
        raise InputError(f"{path} holds no edits by hand, but something else: name a new --workdir.")
    there = _in_force(path)
    if there and not command.yes:
        _ask(f"{path} holds {len(there)} facts; add these {len(wanted)} to them?")
    with _mesh(command):
        _edit(_opened(command), path, wanted, there)


def _edit(session: EditSession, path: Path, wanted: Sequence[EditRecord], there: Sequence[EditRecord]) -> None:
    """Writes the facts beside those that are there, shows what came of them, and saves."""
    again = {one.edit for one in wanted} & {one.edit for one in there}
    if again:
        say("again", f"{len(again)} of these facts are in force there already, and are written once more")
    report = session.edit(wanted, lambda words: say("edit", words))
    print(report, flush=True)
    session.save(path)
    back = f"--mode=undo --batches={','.join(map(str, report.batches))}"
    say("saved", f"{path}; with --workdir={path}: --mode=generate asks, {back} takes this back, --mode=export writes")


def _in_force(path: Path) -> list[EditRecord]:
    """The facts of a saved session, found without its model. Raises InputError for a damaged one."""
    if not workdir.is_taken(path):
        return []
    saved = files.read(path)
    return [one for record in (saved.ledger.active() if saved.ledger else ()) for one in saved.facts[record.number]]


def _opened(command: Command) -> EditSession:
    """The session in the workdir, or a new one. Raises InputError where a config is given and one is there."""
    path = command.workdir
    there = workdir.is_taken(path)
    if there and command.config:
        raise InputError(
            f"{path} holds edits already, whose settings stay: leave --config out, or take a new --workdir."
        )
    session = _loaded(path) if there else _new(command)
    untrained = "untrained, which is allowed; --config.editor.load=RUN takes trained ones, see docs/FACTS.md"
    say("networks", untrained if session.networks == "untrained" else session.networks)
    return session


def _loaded(path: Path) -> EditSession:
    """The session saved in `path`. Raises InputError where there is none."""
    session = EditSession.load(path)
    say_uneven(uneven.of_model(session.lm.config))
    return session


def _new(command: Command) -> EditSession:
    config = command.config
    if not config:
        axes = {f"mesh.{axis}": count for axis, count in (command.mesh or {}).items()}
        session = EditSession.from_pretrained(settings=axes, progress=lambda words: say("model", words))
    else:
        model = config.model
        lm = load_lm(model.name_or_path, model.dtype, accept_terms=model.accept_terms)
        session = EditSession(ml_collections.ConfigDict(config.to_dict()), lm)
        session.load_networks(config.editor.get("load") or ready.networks_of(config))
    say_uneven(uneven.of_model(session.lm.config))
    return session


def _ask(question: str) -> None:
    """Raises InputError where the answer is not yes, or nobody is there to give one."""
    if not sys.stdin.isatty():
        raise InputError(f"{question} Say so with --yes.")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise InputError("nothing was changed.")


def run_generate(path: Path, prompts: Sequence[str]) -> None:
    """Shows how the model goes on after each prompt without and with the edits of `path`.

    Without prompts they are read line by line. Raises InputError where there are no edits.
    """
    session = _loaded(path)
    asked = 0
    for prompt in prompts or _typed():
        asked += 1
        for words, edited in (("before", False), ("after", True)):
            said = session.generate(prompt, edited=edited, max_new_tokens=session.config.eval.max_new_tokens)
            say(words, one_line(f"{prompt}{said}"))
    if not asked:
        raise InputError("there is no prompt: give some with --prompt=TEXT, or type them.")


def _typed() -> Iterator[str]:
    """Lines from the keyboard, or from what is piped in."""
    if sys.stdin.isatty():
        print("type the beginning of a text; an empty line ends", flush=True)
    for line in sys.stdin:
        if not line.strip():
            return
        yield line.rstrip("\n")
