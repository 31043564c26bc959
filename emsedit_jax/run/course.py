"""The stages of a run: asking the model, training, editing; each is made once and its result kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from emsedit_jax.edit.step import no_edit
from emsedit_jax.errors import InputError
from emsedit_jax.measure.score import Shares, means
from emsedit_jax.measure.scores import PUBLISHED, Scores, totals
from emsedit_jax.run import arrays, bookkeeping, edits, exam, examine, history, inputs, ledger, networks, scoring
from emsedit_jax.run.bookkeeping import Bookkeeper, lacks
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.editing import Log, edit, lost_ledger
from emsedit_jax.run.exam import Exam
from emsedit_jax.run.examine import Examined
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.ledger_lines import NO_LEDGER, Mark
from emsedit_jax.run.prepare import Prepared, say
from emsedit_jax.run.stages import Lost, Stages, plain_scores, scores_from
from emsedit_jax.run.train import train
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, MetaState


def asked(run: Prepared, questions: Exam, stages: Stages, clock: PhaseClock, edited: Edited | None) -> Examined:
    """The stage of scoring: the unedited model, or the edited one."""
    words = "after editing" if edited else "unedited"
    deltas = edited.deltas if edited else no_edit(run.editor.sites)
    only = edited is not None and run.config.eval.final_only
    last = scoring.split(run.valid_plan, edited.own, len(run.valid_plan) - 1) if edited and edited.own else None

    def make(keeper: Keeper) -> Examined:
        if only:
            return Examined(scoring.score_all(run, deltas, clock, words, keeper), ())
        return scoring.ask_all(run, questions, deltas, clock, words, keeper, edited=bool(edited), last=last)

    def back(plain: Any) -> Examined:
        found = scoring.examined_from(plain)
        scores = found.scores
        if "ES" in scores and scores["ES"].items != exam.item_names(run.valid_plan, "edit"):
            advice = "name another folder with --workdir, or give the facts back"
            raise InputError(f"the facts to edit are others than when this run was begun; {advice}.")
        return found

    without = () if edited else (inputs.NETWORKS,)  # which may be put right before anything is edited with them
    name = "edited" if edited else "unedited"
    return stages.reach(name, make, scoring.plain_examined, back, alone=True, without=without)


def trained(
    run: Prepared, state: MetaState, stages: Stages, folder: Workdir, clock: PhaseClock, log: Log
) -> tuple[MetaState, int]:
    """The stage of training: the networks, and how many facts they were trained on."""

    def make(keeper: Keeper) -> tuple[MetaState, int]:
        found, trained_on = train(run, state, clock, log, keeper)
        if run.editor.method.learned:
            networks.save(folder.networks, run.editor, found, run.base)
        return found, trained_on

    def back(plain: Any) -> tuple[MetaState, int]:
        if not run.editor.method.learned:
            return state, int(plain)
        try:
            return networks.load(folder.networks, run.editor, state, run.base), int(plain)
        except InputError as error:
            raise Lost(str(error).removesuffix(".")) from None

    if run.learning is None:  # drawn or loaded: read anew, for they may have been put right meanwhile
        return state, 0
    return stages.reach("trained", make, lambda found: found[1], back)


class Edited(NamedTuple):
    """What the stage of editing leaves."""

    deltas: Deltas
    digests: dict[str, str]  # of the deltas, by site
    own: Scores  # ES, GS and LS of each batch right after it was edited in
    so_far: list[dict[str, float]]  # means over all edits so far, where the curve asks for them, with their number
    ability: list[dict[str, float]]  # general ability in between, where it is asked for, likewise
    ledger: dict[str, Any]  # its batches, bytes and content; nothing where none is kept


def edited(
    run: Prepared, questions: Exam, state: MetaState, stages: Stages, folder: Workdir, clock: PhaseClock, log: Log
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

    def more() -> dict[str, Any]:
        return {"own": scoring.plain_shares(own), "so_far": so_far, "ability": ability}

    def settle() -> None:
        """Writes networks that no stage has trained, once it is known that no edits were made with others."""
        if run.editor.method.learned and run.learning is None:
            networks.save(folder.networks, run.editor, state, run.base)

    def make(keeper: Keeper) -> Edited:
        settle()
        if keeper.found is not None:
            place = keeper.found.place
            own[:], so_far[:], ability[:] = scoring.shares_from(place["own"]), place["so_far"], place["ability"]
        scored = None if run.config.eval.final_only else after_batch
        with bookkeeper(run, folder) as books:
            deltas = edit(run, state, clock, log, scored, keeper, more, books).deltas
            told = books.end() if books is not None else {}
            mark = books.mark() if books is not None else NO_LEDGER
        digests = edits.save(folder.edits, run.editor.sites, deltas, run.base, mark)
        scores = scoring.joined(run.valid_plan, own) if own else {}
        return Edited(deltas, digests, scores, so_far, ability, told)

    def back(plain: Any) -> Edited:
        settle()
        told, digests = plain["ledger"], plain["digests"]
        if told and (why := lacks(folder.ledger, Mark(told["batches"], told.get("content", "")))):
            raise Lost(why)
        deltas = _reread(run, folder, digests)
        return Edited(deltas, digests, scores_from(plain["own"]), plain["so_far"], plain["ability"], plain["ledger"])

    def plain(made: Edited) -> dict[str, Any]:
        return {
            "own": plain_scores(made.own),
            "so_far": made.so_far,
            "ability": made.ability,
            "ledger": made.ledger,
            "digests": made.digests,
        }

    found = stages.reach("edits", make, plain, back, odd=functools.partial(lost_ledger, folder.ledger))
    if run.config.ledger.keep and run.config.ledger.history:  # now that no record is cut any more
        bookkeeping.drop(folder.ledger)
    return found


def _reread(run: Prepared, folder: Workdir, digests: dict[str, str]) -> Deltas:
    """The edits that this run has saved: from their file, or where that is damaged from the ledger. Raises Lost."""

    def checked(deltas: Deltas) -> Deltas:
        if arrays.digests(edits.named(run.editor.sites, deltas)) != digests:
            raise InputError(f"{folder.edits} holds other edits than this run made.")
        return deltas

    try:
        return checked(edits.load(folder.edits, run.editor.sites, run.base))
    except InputError as error:
        lost = Lost(str(error).removesuffix("."))
    try:
        deltas = checked(history.deltas(ledger.read(folder.ledger)))
    except InputError:
        raise lost from None
    say("warning", f"{lost}: it is written anew from the ledger")
    edits.save(folder.edits, run.editor.sites, deltas, run.base, ledger.mark_of(folder.ledger))
    return deltas


@contextlib.contextmanager
def bookkeeper(run: Prepared, folder: Workdir) -> Iterator[Bookkeeper | None]:
    """Who writes the run's ledger, if it is to have one."""
    given = run.config.ledger
    wanted = folder.ledger, run.base, run.editor.sites, given.snapshot_every, given.history
    books = Bookkeeper(*wanted) if given.keep else None
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
