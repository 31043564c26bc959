"""A run from beginning to end: score unedited, train, edit, score again, show, and write it all down."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections

from emsedit_jax import sharding
from emsedit_jax.errors import InputError, Preempted
from emsedit_jax.meta import trajectory
from emsedit_jax.run import (
    anchor,
    arrays,
    cluster,
    course,
    edits,
    evaluation,
    exam,
    examine,
    inputs,
    items,
    ledger,
    lock,
    networks,
    page,
    report,
    stopping,
    storing,
    trackers,
    watch,
    workdir,
)
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.exam import Exam
from emsedit_jax.run.examine import Examined
from emsedit_jax.run.export import run_export
from emsedit_jax.run.prepare import Prepared, prepare, say
from emsedit_jax.run.resources import CompileClock, use_compile_cache
from emsedit_jax.run.stages import Stages, remove_stages
from emsedit_jax.run.summary import summarise
from emsedit_jax.run.tracking import Tracking
from emsedit_jax.run.watch import Diverged
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import MetaState


def run(
    config: ml_collections.ConfigDict,
    path: Path,
    mode: str,
    to: Path | None = None,
    form: str = "model",
    saved_mesh: bool = False,
) -> None:
    """Does what `mode` says; an export goes to the folder `to`, in that form.

    `saved_mesh`: the config's mesh is the workdir's, which gives way to the devices here (`cluster.mesh_of`).

    Raises InputError before anything is written over.
    """
    cluster.check_alike(config, mode)
    mesh = cluster.mesh_of(config.mesh.data, config.mesh.model, saved_mesh)
    heeded = stopping.heeded() if to is None else contextlib.nullcontext()
    with mesh as words, CompileClock() as compiling, heeded:
        if words:
            say("mesh", words)
        if to is not None:
            run_export(config, path, to, form)
            return
        clock = PhaseClock(compiling)
        if config.compile_cache:
            use_compile_cache()
        MODES[mode](config, cluster.agree(path), clock, compiling)


def run_train(config: ml_collections.ConfigDict, path: Path, clock: PhaseClock, compiling: CompileClock) -> None:
    """Train, edit, score; writes every file of the workdir.

    A run broken off goes on where it was; a finished one shows what it found.
    """
    if config.editor.grow:
        raise InputError(
            "--config.editor.grow is for edits by hand: leave it out (--config.editor.lr is a step's length)."
        )
    workdir.check_workdir(path, config)
    if sharding.agreed(Workdir(path).summary.exists()):
        _show_finished(Workdir(path))
        return
    trackers.check_installed(config.track)
    exam.check_files(config)
    run = prepare(config)
    questions = exam.prepare_exam(run)
    state = first_networks(run)
    with lock.held(path):
        if not sharding.agreed(Workdir(path).summary.exists()):
            folder = workdir.open_workdir(path, config)
            say("workdir", str(folder.path))
            _run(run, questions, state, folder, clock, compiling)
            return
    _show_finished(Workdir(path))  # somebody else made it meanwhile


def _show_finished(folder: Workdir) -> None:
    """A run that was made before: what it found."""
    summary = storing.read_json(folder.summary, "name another folder with --workdir, or remove this one")
    with lock.tried(folder.path) as is_free:
        if is_free:  # else who made it may be at its last steps
            _finish(folder)
    say("workdir", f"{folder.path}: this run is finished; name another --workdir to make it again")
    _show(summary, [report.Example(**one) for one in summary["examples"]], folder)


def _finish(folder: Workdir) -> None:
    """Does what is left to be done for a run that died between its last steps."""
    remove_stages(folder)
    if not folder.report.exists():
        workdir.sweep(folder)
        _write_page(folder)


def _run(
    run: Prepared, questions: Exam, state: MetaState, folder: Workdir, clock: PhaseClock, compiling: CompileClock
) -> None:
    """All stages, with what is to be said where they do not come to an end."""
    with _told_how_to_go_on(folder), contextlib.closing(Tracking(folder, run.config)) as tracking:
        _go_through(run, questions, state, folder, clock, compiling, tracking)


@contextlib.contextmanager
def _told_how_to_go_on(folder: Workdir) -> Iterator[None]:
    try:
        yield
    except Preempted:
        again = f"the same command with --workdir={folder.path} goes on"
        raise Preempted(f"what is done is saved in {folder.path}; {again}.") from None


def _go_through(
    run: Prepared,
    questions: Exam,
    state: MetaState,
    folder: Workdir,
    clock: PhaseClock,
    compiling: CompileClock,
    tracking: Tracking,
) -> None:
    """All stages of a run."""
    config = run.config
    stages = Stages(folder, clock, config.checkpoint.every, inputs.digests(run, questions, state))
    before = Examined({}, ()) if config.eval.final_only else course.asked(run, questions, stages, clock, None)
    try:
        state, trained_on = course.trained(run, state, stages, folder, clock, tracking.log)
        edited = course.edited(run, questions, state, stages, folder, clock, tracking.log)
    except Diverged as stop:
        raise Diverged(f"{stop} {_keep(run, folder, stop)}", stop.deltas, stop.state) from None
    after = course.asked(run, questions, stages, clock, edited)

    report.plot_curve(folder.curve, course.curve(run, before, edited, after))
    summary = summarise(run, clock, compiling, before, after, edited.digests)
    examples = examine.examples(questions, before, after)
    along = {"so_far": edited.so_far, "ability": edited.ability}
    shown = [example._asdict() for example in examples]
    more: dict[str, Any] = {"trained_on": trained_on, "along": along, "ledger": edited.ledger, "examples": shown}
    more["failures"] = examine.failed(run.valid_plan, questions, before, after)
    items.write(folder.scores, {"unedited": before.scores, "edited": after.scores})
    summary |= more
    summary["metrics_seal"] = tracking.end(summary["scores"])
    storing.write_json(folder.summary, summary)
    stages.finish()
    _write_page(folder)
    _show(summary, examples, folder)


def _write_page(folder: Workdir) -> None:
    """Writes report.html. Where that cannot be done it is said, and the run is finished all the same."""
    if not sharding.is_first():
        return
    try:
        page.write(folder)
    except InputError as error:
        say("warning", f"{error} --mode=report writes it later.")


def first_networks(run: Prepared) -> MetaState:
    """The networks to begin with: fresh, or those of another run. Raises InputError where they do not fit."""
    config = run.config
    state = trajectory.init(run.editor, config.seed, run.learning)
    if not config.editor.get("load"):
        return state
    path = networks.file_of(config.editor.load)
    state = networks.load(path, run.editor, state, run.base)
    say("networks", f"{path}, not trained any further")
    return state


def _keep(run: Prepared, folder: Workdir, stop: Diverged) -> str:
    """Saves what was good before the run broke off; returns words that say where."""
    kept = []
    trained = (folder.stages / "trained.json").exists()  # then the networks are there, as editing began with them
    if run.editor.method.learned and not trained and watch.is_finite(stop.state):
        networks.save(folder.networks, run.editor, stop.state, run.base)
        kept.append(folder.networks.name)
    if stop.deltas is not None:
        edits.save(folder.edits, run.editor.sites, stop.deltas, run.base, ledger.mark_of(folder.ledger))
        kept.append(folder.edits.name)
    return f"What was good before is in {folder.path}: {' and '.join(kept)}." if kept else "Nothing was saved."


def run_eval(config: ml_collections.ConfigDict, path: Path, clock: PhaseClock, compiling: CompileClock) -> None:
    """Scores the edits saved in a workdir again, on the data the config names; writes `eval.json` there.

    An evaluation broken off goes on where it was.
    """
    folder = Workdir(path)
    anchor.check_present(folder)
    exam.check_files(config)
    run = prepare(config, training=False)
    questions = exam.prepare_exam(run)
    with lock.held(path), _told_how_to_go_on(folder):
        deltas = anchor.load(folder, run.editor.sites, run.base)
        say("edits", str(folder.edits))
        found = arrays.digests(edits.named(run.editor.sites, deltas))
        before, after = evaluation.asked(run, questions, deltas, found, folder, clock)
        summary = summarise(run, clock, compiling, before, after, found)
        storing.write_json(path / "eval.json", summary)
        evaluation.finish(folder)
    _show(summary, examine.examples(questions, before, after), folder)


MODES = {"train": run_train, "eval": run_eval}


def _show(summary: dict, examples: list[report.Example], folder: Workdir) -> None:
    report.print_examples(examples)
    print()
    report.print_table(summary)
    print(f"files in {folder.path}", flush=True)
