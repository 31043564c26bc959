"""The published scores over a run's edit batches, and everything else that is asked, as one set of scores by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from emsedit_jax.data.batching import EditPlan
from emsedit_jax.measure.passes import Passes
from emsedit_jax.measure.score import Shares, score_edits
from emsedit_jax.measure.scores import NAMES, Score, Scores
from emsedit_jax.run import exam, examine
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.exam import Exam
from emsedit_jax.run.examine import Examined, Part
from emsedit_jax.run.keeper import Keeper
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.progress import Batchwise, track
from emsedit_jax.run.stages import plain_scores, scores_from
from emsedit_jax.types import Deltas

PUBLISHED = "published"  # the first part of what is kept of scoring: ES, GS and LS


def score_batches(
    run: Prepared, deltas: Deltas, js: Iterable[int], begun: Callable[[], None] = lambda: None
) -> Iterator[Shares]:
    """ES, GS and LS of these edit batches' prompts, batch by batch."""
    return score_edits(run.under(deltas), run.score_plan, js, begun=begun)


def score_all(
    run: Prepared, deltas: Deltas, clock: PhaseClock, words: str, keeper: Keeper, last: Shares | None = None
) -> dict[str, Score]:
    """ES, GS and LS of all edit batches' prompts under `deltas`; those of the last batch may be known.

    Raises: Preempted.
    """
    n_batches, n_edits = len(run.valid_plan), run.config.dataset.n_edits
    found = shares_from(keeper.found.place["batches"]) if keeper.found is not None else []
    asked = range(len(found), n_batches if last is None else n_batches - 1)
    with clock.phase("score"), track(n_batches * n_edits, f"scoring {words}", "facts") as progress:
        shown = Batchwise(progress)
        progress.advance(len(found) * n_edits)

        def begun() -> Iterator[int]:
            for j in asked:
                shown.batch(n_edits, len(run.score_plan.cuts[j]))
                yield j

        for shares in score_batches(run, deltas, begun(), shown.next_pass):
            found.append(shares)
            shown.end()
            if len(found) <= asked[-1] and keeper.is_due():
                keeper.save({}, {"batches": plain_shares(found)})
        if last is not None:
            found.append(last)
            progress.advance(n_edits)
    return joined(run.valid_plan, found)


def ask_all(
    run: Prepared,
    questions: Exam,
    deltas: Deltas,
    clock: PhaseClock,
    words: str,
    keeper: Keeper,
    *,
    edited: bool,
    last: Shares | None = None,
) -> Examined:
    """The published scores and all further ones; `edited`: also what there is to tell of an edited model alone.

    The state is kept as the passes go, whenever that is worth it. Raises: Preempted.
    """
    kept = Kept(keeper)
    done = kept.done
    if PUBLISHED not in done:
        done[PUBLISHED] = Examined(score_all(run, deltas, clock, words, keeper, last), ())
        kept.keep_if_due()
    parts = examine.parts(run, questions, deltas, edited=edited)
    left = [name for name in parts if name not in done]
    with clock.phase("score"):
        amid = {name: kept.passes(name, parts[name]) for name in left}
        total = sum(len(parts[name].cuts) - len(amid[name].found) for name in left)
        with track(total, f"asking {words}", "passes") as progress:
            shown = Batchwise(progress)
            shown.batch(total, total)
            for name in left:
                amid[name].begun = shown.next_pass
                done[name] = parts[name].ask(amid[name])
                if name != left[-1]:
                    kept.keep_if_due()
            shown.end()
    scores = done.pop(PUBLISHED).scores
    later = examine.retention(run.valid_plan, scores) if edited and run.config.eval.further else {}
    further = {name: score for part in done.values() for name, score in part.scores.items()}
    return Examined({**scores, **later, **further}, tuple(words for part in done.values() for words in part.said))


class Kept:
    """What of all questions is asked, as the keeper has it: whole sorts, and of the one in between its passes."""

    def __init__(self, keeper: Keeper):
        place = keeper.found.place if keeper.found is not None else {}
        self.done = {name: examined_from(part) for name, part in place.get("parts", {}).items()}
        self._keeper, self._amid = keeper, place.get("amid", {})

    def passes(self, name: str, part: Part) -> Passes:
        """The passes over that sort: those of before, where the same was asked in the same passes, and those to come.

        The state is kept along with them.
        """
        mark = examine.mark(name, part.asked, part.cuts)
        before = self._amid if self._amid.get("mark") == mark else {"found": []}

        def ended() -> None:
            if len(passes.found) < len(part.cuts):
                self.keep_if_due({"mark": mark, "found": passes.found})

        passes = Passes(before["found"], ended=ended)
        return passes

    def keep_if_due(self, amid: Mapping[str, Any] | None = None) -> None:
        """Saves the state, and what there is of the sort that is being asked. Raises: Preempted."""
        if self._keeper.is_due_at_once():
            parts = {name: plain_examined(part) for name, part in self.done.items()}
            self._keeper.save({}, {"batches": [], "parts": parts, "amid": amid or {}})


def plain_examined(found: Examined) -> dict[str, Any]:
    """What came of questions as JSON holds it, every float as it is."""
    return {"scores": plain_scores(found.scores), "said": list(found.said)}


def examined_from(plain: Mapping[str, Any]) -> Examined:
    """The way back."""
    return Examined(scores_from(plain["scores"]), tuple(plain["said"]))


def joined(plan: EditPlan, batches: Sequence[Shares]) -> dict[str, Score]:
    """The shares of the first batches as scores by item; none of a kind that has no prompts."""
    part = plan.part(0, len(batches))
    found = {name: np.concatenate([one[name] for one in batches]) for name in NAMES.values()}
    return {name: Score(found[name], exam.item_names(part, kind)) for kind, name in NAMES.items() if found[name].size}


def plain_shares(batches: Sequence[Shares]) -> list[dict[str, list[float]]]:
    """Shares batch by batch as JSON holds them, every float as it is."""
    return [{name: values.tolist() for name, values in one.items()} for one in batches]


def shares_from(plain: Sequence[Mapping[str, Sequence[float]]]) -> list[Shares]:
    """The way back."""
    return [{name: np.array(values, np.float64) for name, values in one.items()} for one in plain]


def by_batch(plan: EditPlan, scores: Scores) -> dict[str, list[float]]:
    """Mean of each published score in each batch, in percent."""
    found = {}
    for kind, name in NAMES.items():
        if name in scores:
            sizes = [len(items) for items in plan.items[kind]]
            parts = np.split(scores[name].values, np.cumsum(sizes)[:-1])
            found[name] = [100 * float(np.mean(part)) if part.size else float("nan") for part in parts]
    return found


def split(plan: EditPlan, scores: Scores, j: int) -> Shares:
    """One batch's shares of the published scores; the way back from `joined`."""
    found: Shares = {}
    for kind, name in NAMES.items():
        sizes = [len(items) for items in plan.items[kind]]
        start = sum(sizes[:j])
        found[name] = scores[name].values[start : start + sizes[j]] if name in scores else np.zeros(0)
    return found
