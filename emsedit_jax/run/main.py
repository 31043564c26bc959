"""A run from beginning to end: score unedited, train, edit, score again, show, and write it all down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np

from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import assets, generate
from emsedit_jax.measure.score import NAMES, Scores, means, score_edits
from emsedit_jax.meta import trajectory
from emsedit_jax.run import arrays, edits, networks, report, resources, watch, workdir
from emsedit_jax.run.clock import PhaseClock
from emsedit_jax.run.export import run_export
from emsedit_jax.run.prepare import Prepared, prepare, say
from emsedit_jax.run.progress import Batchwise, track
from emsedit_jax.run.report import Example
from emsedit_jax.run.resources import CompileClock
from emsedit_jax.run.train import edit, train
from emsedit_jax.run.watch import Diverged
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, MetaState


def run(config: ml_collections.ConfigDict, path: Path, mode: str, to: Path | None = None) -> None:
    """Does what `mode` says; an export goes to the folder `to`. Raises InputError before anything is written over."""
    if to is not None:
        run_export(config, path, to)
        return
    with CompileClock() as compiling:
        clock = PhaseClock(compiling)
        if config.compile_cache:
            use_compile_cache()
        jax.config.update("jax_default_matmul_precision", "highest")  # float32 models in float32, not in TF32
        MODES[mode](config, path, clock, compiling)


def use_compile_cache() -> None:
    """Keeps compiled programs between runs, in the package's cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(assets.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def run_train(config: ml_collections.ConfigDict, path: Path, clock: PhaseClock, compiling: CompileClock) -> None:
    """Train, edit, score; writes every file of the workdir."""
    workdir.check_workdir(path, config)
    run = prepare(config)
    state = first_networks(run)
    folder = workdir.open_workdir(path, config)
    say("workdir", str(folder.path))

    trained_on = 0

    def log(row: dict) -> None:
        nonlocal trained_on
        trained_on += config.dataset.n_edits if row["phase"] == "train" else 0
        workdir.append_jsonl(folder.metrics, row)

    final_only = config.eval.final_only
    unedited = [] if final_only else score_all(run, no_edit(run.editor.sites), clock, "unedited")
    own: list[Scores] = []
    so_far: list[dict[str, float]] = []

    def after_batch(j: int, deltas: Deltas) -> dict:
        if final_only:
            return {}
        with clock.phase("score"):
            own.append(_score_batch(run, deltas, j))
            row: dict = means(own[-1:])
            if config.editor.full_curve:
                everything = [_score_batch(run, deltas, old) for old in range(j)] + own[-1:]
                row["so_far"] = means(everything)
                so_far.append(row["so_far"])
        return row

    try:
        state = train(run, state, clock, log)
        if run.editor.method.learned:
            networks.save(folder.networks, run.editor, state, run.base)
        deltas, state = edit(run, state, clock, log, after_batch)
    except Diverged as stop:
        raise Diverged(f"{stop} {_keep(run, folder, stop)}", stop.deltas, stop.state) from None
    edited = score_all(run, deltas, clock, "after editing", last=own[-1] if own else None)
    examples = before_and_after(run, deltas)

    found = edits.save(folder.edits, run.editor.sites, deltas, run.base)
    n_edits = config.dataset.n_edits
    report.plot_curve(
        folder.curve,
        {
            "edits": [n_edits * (j + 1) for j in range(len(edited))],
            "after_own": _by_batch(own),
            "after_last": _by_batch(edited),
            "so_far": {name: [one[name] for one in so_far] for name in NAMES.values() if so_far},
            "unedited": _by_batch(unedited),
        },
    )
    scores = ({} if final_only else {"unedited": unedited}) | {"edited": edited}
    summary = summarise(run, clock, compiling, scores, found)
    summary["trained_on"] = trained_on
    summary["examples"] = [example._asdict() for example in examples]
    workdir.write_json(folder.summary, summary)
    _show(summary, examples, folder)


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
    run = prepare(config, training=False)
    deltas = edits.load(folder.edits, run.editor.sites, run.base)
    say("edits", str(folder.edits))
    unedited = score_all(run, no_edit(run.editor.sites), clock, "unedited")
    edited = score_all(run, deltas, clock, "after editing")
    examples = before_and_after(run, deltas)
    found = arrays.digests(edits.named(run.editor.sites, deltas))
    summary = summarise(run, clock, compiling, {"unedited": unedited, "edited": edited}, found)
    workdir.write_json(path / "eval.json", summary)
    _show(summary, examples, folder)


MODES = {"train": run_train, "eval": run_eval}


def score_all(run: Prepared, deltas: Deltas, clock: PhaseClock, words: str, last: Scores | None = None) -> list[Scores]:
    """The scores of every edit batch's prompts under `deltas`, batch by batch; those of the last one may be known."""
    n_batches, n_edits = len(run.valid_plan), run.config.dataset.n_edits
    found = []
    with clock.phase("score"), track(n_batches * n_edits, f"scoring {words}", "facts") as progress:
        shown = Batchwise(progress)
        for j in range(n_batches):
            shown.batch(n_edits, len(run.score_plan.cuts[j]))
            known = last if j == n_batches - 1 else None
            found.append(known or _score_batch(run, deltas, j, shown.next_pass))
            shown.end()
    return found


def _score_batch(run: Prepared, deltas: Deltas, j: int, begun: Callable[[], None] = lambda: None) -> Scores:
    return score_edits(
        run.lm.config, run.editor.sites, run.lm.params, deltas, run.score_plan, j, run.prefixes, begun=begun
    )


def before_and_after(run: Prepared, deltas: Deltas) -> list[Example]:
    """Facts from all along the sequence in the model's own words, unedited and edited, up to the first line's end."""
    cues = [record.edit for j in range(len(run.valid_plan)) for record in run.valid_plan.records(j)]
    places = np.linspace(0, len(cues) - 1, min(run.config.eval.examples, len(cues))).round().astype(int)
    shown = [cues[place] for place in places]
    if not shown:
        return []
    said = []
    for edit_deltas in (no_edit(run.editor.sites), deltas):
        said.append(
            generate.continuations(
                run.lm.config,
                run.lm.params,
                run.lm.tokenizer,
                [cue.prompt for cue in shown],
                run.config.eval.max_new_tokens,
                run.editor.sites,
                edit_deltas,
                must_speak=True,  # a chat model may end at once after a bare question
            )
        )
    first_lines = [[words.strip().split("\n")[0] for words in each] for each in said]
    return [Example(cue.prompt, cue.answer, *both) for cue, *both in zip(shown, *first_lines, strict=True)]


def _by_batch(scores: list[Scores]) -> dict[str, list[float]]:
    return {name: [100 * float(np.mean(one[name])) for one in scores] for name in NAMES.values() if scores}


def summarise(
    run: Prepared, clock: PhaseClock, compiling: CompileClock, scores: dict[str, list[Scores]], digests: dict[str, str]
) -> dict:
    """The content of summary.json; `scores`, `edits` and `digests` are the same bits for the same seed and machine."""
    prefixes = run.prefixes
    return {
        "scores": {name: means(found) for name, found in scores.items()},
        "edits": len(run.valid_plan) * run.config.dataset.n_edits,
        "digests": digests,
        "seconds": clock.summary(),
        "compiled": {"programs": compiling.programs, "from_cache": compiling.cache_hits},
        "prefix_store": {"hits": prefixes.hits, "misses": prefixes.misses},
        "peak_rss_mb": round(resources.peak_rss_mb(), 1),
        "peak_device_mb": resources.peak_device_mb(),
        "seed": run.config.seed,
        "editor": run.config.editor.name,
        "model": run.config.model.name_or_path,
    } | resources.describe()


def _show(summary: dict, examples: list[Example], folder: Workdir) -> None:
    report.print_examples(examples)
    print()
    report.print_table(summary)
    print(f"files in {folder.path}", flush=True)
