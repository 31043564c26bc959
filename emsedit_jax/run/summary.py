"""The content of summary.json: scores with their intervals, costs, and what the run stands on."""

from __future__ import annotations

from emsedit_jax.data import shapes as shaping
from emsedit_jax.run import items, resources
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.examine import Examined
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.resources import CompileClock


def summarise(
    run: Prepared,
    clock: PhaseClock,
    compiling: CompileClock,
    before: Examined,
    after: Examined,
    digests: dict[str, str],
) -> dict:
    """`scores`, `edits` and `digests` are the same bits for the same seed and machine."""
    found = {"unedited": before.scores, "edited": after.scores}
    scores = {name: items.summarised(one) for name, one in found.items() if one}
    prefixes = run.prefixes
    return {
        "scores": {name: one["totals"] for name, one in scores.items()},
        "intervals": {name: one["intervals"] for name, one in scores.items()},
        "items": {name: one["items"] for name, one in scores.items()},
        "edits": len(run.valid_plan) * run.config.dataset.n_edits,
        "skipped_rows": {role: {"count": len(rows), "rows": list(rows)} for role, rows in run.skipped.items()},
        "conflicts": list(run.conflicts),
        "digests": digests,
        "seconds": clock.summary(),
        "compiled": {"programs": compiling.programs, "from_cache": compiling.cache_hits},
        "packing": packing_of(run),
        "prefix_store": {"hits": prefixes.hits, "misses": prefixes.misses, "hit_rate": prefixes.hit_rate},
        "peak_rss_mb": round(resources.peak_rss_mb(), 1),
        "peak_device_mb": resources.peak_device_mb(),
        "peaks_mb": clock.peaks,
        "seed": run.config.seed,
        "editor": run.config.editor.name,
        "model": run.config.model.name_or_path,
    } | resources.describe()


def packing_of(run: Prepared) -> dict[str, float | int | dict[str, float]]:
    """Padding's share of the tokens that linear maps run on, in all and by what is run, and in how many shapes."""
    passes = {"editing": run.valid_plan.passes("edit"), "scoring": run.score_plan.passes()}
    if run.train_plan is not None and run.learning is not None:
        kinds = ("edit", "equiv", "unrel") if run.learning.loc_coef else ("edit", "equiv")
        passes |= {f"training, {kind}": run.train_plan.passes(kind) for kind in kinds}
    whole, shapes = shaping.padding([one for found in passes.values() for one in found])
    by = {name: round(shaping.padding(found)[0], 4) for name, found in passes.items()}
    return {"padding": round(whole, 4), "shapes": shapes, "padding_of": by}
