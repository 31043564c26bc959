"""A run from beginning to end: score unedited, train, edit, score again, show, and write it all down."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from emsedit_jax import sharding
from emsedit_jax.edit.step import no_edit
from emsedit_jax.errors import InputError, Preempted
from emsedit_jax.lm import assets
from emsedit_jax.measure.score import Shares, means
from emsedit_jax.measure.scores import PUBLISHED, Scores, totals
from emsedit_jax.meta import trajectory
from emsedit_jax.run import (
    arrays,
    cluster,
    edits,
    exam,
    examine,
    items,
    lock,
    networks,
    report,
    scoring,
    stopping,
    watch,
    workdir,
)
from emsedit_jax.run import keeper as keeping
from emsedit_jax.run.bookkeeping import Bookkeeper
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.editing import edit
from emsedit_jax.run.exam import Exam
from emsedit_jax.run.examine import Examined
from emsedit_jax.run.export import run_export
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.prepare import Prepared, prepare, say
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.stages import Stages, plain_scores, remove_stages, scores_from
from emsedit_jax.run.summary import summarise
from emsedit_jax.run.train import train
from emsedit_jax.run.watch import Diverged
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, MetaState


def run(config: ml_collections.ConfigDict, path: Path, mode: str, to: Path | None = None) -> None:
    """Does what `mode` says; an export goes to the folder `to`. Raises InputError before anything is written over."""
    if to is not None:
        run_export(config, path, to)
        return
    mesh = cluster.mesh_of(config.mesh.data, config.mesh.model)
    with mesh as words, CompileClock() as compiling, stopping.heeded():
        if words:
            say("mesh", words)
        clock = PhaseClock(compiling)
        if config.compile_cache:
            use_compile_cache()
        MODES[mode](config, cluster.agree(path), clock, compiling)


def use_compile_cache() -> None:
    """Keeps compiled programs between runs, in the package's cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(assets.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def run_train(config: ml_collections.ConfigDict, path: Path, clock: PhaseClock, compiling: CompileClock) -> None:
    """Train, edit, score; writes every file of the workdir.

    A run broken off goes on where it was; a finished one shows what it found.
    """
    workdir.check_workdir(path, config)
    if sharding.agreed(Workdir(path).summary.exists()):
        _show_finished(Workdir(path))
        return
    exam.check_files(config)
    run = prepare(config)
    questions = exam.prepare_exam(run)
    state = first_networks(run)
    with lock.held(path):
        folder = workdir.open_workdir(path, config)
        say("workdir", str(folder.path))
        _run(run, questions, state, folder, clock, compiling)


def _show_finished(folder: Workdir) -> None:
    """A run that was made before: what it found."""
    remove_stages(folder)  # of a run that died between its last two steps
    summary = workdir.read_json(folder.summary, "name another folder with --workdir, or remove this one")
    say("workdir", f"{folder.path}: this run is finished; name another --workdir to make it again")
    _show(summary, [report.Example(**one) for one in summary["examples"]], folder)


def _run(
    run: Prepared, questions: Exam, state: MetaState, folder: Workdir, clock: PhaseClock, compiling: CompileClock
) -> None:
    """All stages, with what is to be said where they do not come to an end."""
    try:
        _go_through(run, questions, state, folder, clock, compiling)
    except Preempted:
        again = f"the same command with --workdir={folder.path} goes on"
        raise Preempted(f"what is done is saved in {folder.path}; {again}.") from None


def _go_through(
    run: Prepared, questions: Exam, state: MetaState, folder: Workdir, clock: PhaseClock, compiling: CompileClock
) -> None:
    """All stages of a run."""
    config, stages = run.config, Stages(folder, clock, run.config.checkpoint.every)
    before = Examined({}, ()) if config.eval.final_only else _asked(run, questions, stages, clock, None)
    try:
        state, trained_on = _trained(run, state, stages, folder, clock)
        edited = _edited(run, questions, state, stages, folder, clock)
    except Diverged as stop:
        raise Diverged(f"{stop} {_keep(run, folder, stop)}", stop.deltas, stop.state) from None
    after = _asked(run, questions, stages, clock, edited)

    report.plot_curve(folder.curve, curve(run, before, edited, after))
    summary = summarise(run, clock, compiling, before, after, edited.digests)
    examples = examine.examples(questions, before, after)
    along = {"so_far": edited.so_far, "ability": edited.ability}
    shown = [example._asdict() for example in examples]
    more: dict[str, Any] = {"trained_on": trained_on, "along": along, "ledger": edited.ledger, "examples": shown}
    items.write(folder.scores, {"unedited": before.scores, "edited": after.scores})
    workdir.write_json(folder.summary, summary | more)
    stages.finish()
    _show(summary, examples, folder)


def _asked(run: Prepared, questions: Exam, stages: Stages, clock: PhaseClock, edited: Edited | None) -> Examined:
    """The stage of scoring: the unedited model, or the edited one."""
    words = "after editing" if edited else "unedited"
    deltas = edited.deltas if edited else no_edit(run.editor.sites)
    only = edited is not None and run.config.eval.final_only
    last = scoring.split(run.valid_plan, edited.own, len(run.valid_plan) - 1) if edited and edited.own else None

    def make(keeper: Keeper) -> Examined:
        if only:
            return Examined(scoring.score_all(run, deltas, clock, words, keeper), ())
        return scoring.ask_all(run, questions, deltas, clock, words, keeper, edited=bool(edited), last=last)

    def plain(found: Examined) -> dict[str, Any]:
        return {"scores": plain_scores(found.scores), "said": list(found.said)}

    def back(found: Any) -> Examined:
        scores = scores_from(found["scores"])
        if "ES" in scores and scores["ES"].items != exam.item_names(run.valid_plan, "edit"):
            advice = "name another folder with --workdir, or give the facts back"
            raise InputError(f"the facts to edit are others than when this run was begun; {advice}.")
        return Examined(scores, tuple(found["said"]))

    return stages.reach("edited" if edited else "unedited", make, plain, back)


def _trained(
    run: Prepared, state: MetaState, stages: Stages, folder: Workdir, clock: PhaseClock
) -> tuple[MetaState, int]:
    """The stage of training: the networks, and how many facts they were trained on."""

    def log(row: dict) -> None:
        workdir.append_jsonl(folder.metrics, row)

    def make(keeper: Keeper) -> tuple[MetaState, int]:
        found, trained_on = train(run, state, clock, log, keeper)
        if run.editor.method.learned:
            networks.save(folder.networks, run.editor, found, run.base)
        return found, trained_on

    def back(plain: Any) -> tuple[MetaState, int]:
        learned = run.editor.method.learned
        return networks.load(folder.networks, run.editor, state, run.base) if learned else state, int(plain)

    if run.learning is None:  # drawn or loaded: read anew, for they may have been put right meanwhile
        return make(keeping.nothing(clock))
    return stages.reach("trained", make, lambda found: found[1], back)


class Edited(NamedTuple):
    """What the stage of editing leaves."""

    deltas: Deltas
    digests: dict[str, str]  # of the deltas, by site
    own: Scores  # ES, GS and LS of each batch right after it was edited in
    so_far: list[dict[str, float]]  # means over all edits so far, where the curve asks for them, with their number
    ability: list[dict[str, float]]  # general ability in between, where it is asked for, likewise
    ledger: dict[str, int]  # its batches and bytes; nothing where none is kept


def _edited(
    run: Prepared, questions: Exam, state: MetaState, stages: Stages, folder: Workdir, clock: PhaseClock
) -> Edited:
    """The stage of editing, each batch scored as soon as it is in."""
    own: list[Shares] = []
    so_far: list[dict[str, float]] = []
    ability: list[dict[str, float]] = []
    n_batches, step = len(run.valid_plan), run.config.eval.glue_step

    def after_batch(j: int, deltas: Deltas) -> dict:
        with clock.phase("score"):
            own.extend(scoring.score_batches(run, deltas, [j]))
            row: dict = means(own[-1:])
            edits_made = {"edits": (j + 1) * run.config.dataset.n_edits}
            if run.config.editor.full_curve and _is_due(j + 1, run.config.eval.curve_step, n_batches):
                row["so_far"] = means([*scoring.score_batches(run, deltas, range(j)), own[-1]])
                so_far.append(edits_made | row["so_far"])
            if step and (j + 1) % step == 0 and j + 1 < n_batches:  # after the last it is asked with all the rest
                row["ability"] = totals(examine.ability_scores(run, questions, deltas))
                ability.append(edits_made | row["ability"])
        return row

    def log(row: dict) -> None:
        workdir.append_jsonl(folder.metrics, row)

    def more() -> dict[str, Any]:
        return {"own": scoring.plain_shares(own), "so_far": so_far, "ability": ability}

    def make(keeper: Keeper) -> Edited:
        if keeper.found is not None:
            place = keeper.found.place
            own[:], so_far[:], ability[:] = scoring.shares_from(place["own"]), place["so_far"], place["ability"]
        scored = None if run.config.eval.final_only else after_batch
        with bookkeeper(run, folder) as books:
            deltas = edit(run, state, clock, log, scored, keeper, more, books).deltas
            told = books.end() if books is not None else {}
        digests = edits.save(folder.edits, run.editor.sites, deltas, run.base)
        scores = scoring.joined(run.valid_plan, own) if own else {}
        return Edited(deltas, digests, scores, so_far, ability, told)

    def back(plain: Any) -> Edited:
        deltas = edits.load(folder.edits, run.editor.sites, run.base)
        digests = arrays.digests(edits.named(run.editor.sites, deltas))
        return Edited(deltas, digests, scores_from(plain["own"]), plain["so_far"], plain["ability"], plain["ledger"])

    def plain(made: Edited) -> dict[str, Any]:
        return {"own": plain_scores(made.own), "so_far": made.so_far, "ability": made.ability, "ledger": made.ledger}

    return stages.reach("edits", make, plain, back)


@contextlib.contextmanager
def bookkeeper(run: Prepared, folder: Workdir) -> Iterator[Bookkeeper | None]:
    """Who writes the run's ledger, if it is to have one."""
    given = run.config.ledger
    books = Bookkeeper(folder.ledger, run.base, run.editor.sites, given.snapshot_every) if given.keep else None
    try:
        yield books
    finally:
        if books is not None:
            books.close()


def _is_due(done: int, step: int, total: int) -> bool:
    """Whether something that comes after every so many batches, and after the last, comes now."""
    return done % step == 0 or done == total


def curve(run: Prepared, before: Examined, edited: Edited, after: Examined) -> dict[str, Any]:
    """What `report.plot_curve` draws."""
    plan, n_edits = run.valid_plan, run.config.dataset.n_edits
    nothing = float("nan")  # of a kind that no batch so far has prompts of
    so_far = {name: [one.get(name, nothing) for one in edited.so_far] for name in after.scores if name in PUBLISHED}
    return {
        "edits": [n_edits * (j + 1) for j in range(len(plan))],
        "after_own": scoring.by_batch(plan, edited.own),
        "after_last": scoring.by_batch(plan, after.scores),
        "so_far": so_far if edited.so_far else {},
        "so_far_edits": [one["edits"] for one in edited.so_far],
        "unedited": scoring.by_batch(plan, before.scores),
    }


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
    if run.editor.method.learned and watch.is_finite(stop.state):
        networks.save(folder.networks, run.editor, stop.state, run.base)
        kept.append(folder.networks.name)
    if stop.deltas is not None:
        edits.save(folder.edits, run.editor.sites, stop.deltas, run.base)
        kept.append(folder.edits.name)
    return f"What was good before is in {folder.path}: {' and '.join(kept)}." if kept else "Nothing was saved."


def run_eval(config: ml_collections.ConfigDict, path: Path, clock: PhaseClock, compiling: CompileClock) -> None:
    """Scores the edits saved in a workdir again, on the data the config names; writes `eval.json` there."""
    folder = Workdir(path)
    edits.check_present(folder.edits)
    exam.check_files(config)
    run = prepare(config, training=False)
    questions = exam.prepare_exam(run)
    deltas = edits.load(folder.edits, run.editor.sites, run.base)
    say("edits", str(folder.edits))
    unedited, idle = no_edit(run.editor.sites), keeping.nothing(clock)
    before = scoring.ask_all(run, questions, unedited, clock, "unedited", idle, edited=False)
    after = scoring.ask_all(run, questions, deltas, clock, "after editing", idle, edited=True)
    found = arrays.digests(edits.named(run.editor.sites, deltas))
    summary = summarise(run, clock, compiling, before, after, found)
    with lock.held(path):
        workdir.write_json(path / "eval.json", summary)
    _show(summary, examine.examples(questions, before, after), folder)


MODES = {"train": run_train, "eval": run_eval}


def _show(summary: dict, examples: list[report.Example], folder: Workdir) -> None:
    report.print_examples(examples)
    print()
    report.print_table(summary)
    print(f"files in {folder.path}", flush=True)
