"""Of a run's page: what it cost, how far it moved the weights, what it stands on, and how to make it again."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emsedit_jax.run import page_figures, settings

if TYPE_CHECKING:
    from emsedit_jax.run.page import Found

PHASES = {"train": "training", "edit": "editing", "score": "scoring", "compile": "compiling", "rest": "the rest"}
EACH = ("train", "edit")  # phases that take their time for each edit


def parts(found: Found) -> dict[str, Any]:
    """What the template shows of costs, shifts and circumstances."""
    return {
        "time": _time(found.summary),
        "memory": _memory(found),
        "norms": _norms(found.rows),
        "stands_on": _stands_on(found),
        "digests": found.summary.get("digests", {}),
        "settings": [(name, _plain(value)) for name, value in found.config.items()],
        "command": command(found.config),
    }


# ------------------------------------------------------------------------------------------ time and memory


def _time(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Seconds by phase; None of a run that is not finished."""
    seconds = dict(summary.get("seconds", {}))
    total = seconds.get("total")
    if not total:
        return None
    seconds["rest"] = max(total - sum(seconds.get(name, 0.0) for name in PHASES), 0.0)
    known = {name: seconds[name] for name in PHASES if seconds.get(name)}
    facts = {"train": summary.get("trained_on"), "edit": summary.get("edits")}
    peaks = summary.get("peaks_mb")
    rows = [
        {
            "words": PHASES[name],
            "color": place,
            "seconds": f"{value:,.1f}",
            "share": f"{100 * value / total:.0f} %",
            "each": f"{value / facts[name]:.3g}" if name in EACH and facts[name] else "",
            "peak": "" if peaks is None or name in ("compile", "rest") else _peak(peaks.get(name, {})),
        }
        for place, (name, value) in enumerate(known.items())
    ]
    words = "; ".join(f"{row['words']} {row['share']}" for row in rows)
    picture = page_figures.parts(
        {PHASES[name]: value for name, value in known.items()}, f"Where the time went: {words}"
    )
    return {"rows": rows, "total": f"{total:,.1f}", "picture": picture, "peaks": peaks is not None}


def _peak(risen: Mapping[str, float]) -> str:
    """How far the peaks rose in a phase."""
    found = [gigabytes(risen["host"])] if "host" in risen else []
    found += [f"{gigabytes(risen['device'])} on the device"] if "device" in risen else []
    return ", ".join(found) or "no higher than before"


def gigabytes(mb: float) -> str:
    return f"{mb / 1024:.2f} GB"


def _memory(found: Found) -> list[tuple[str, str]]:
    summary = found.summary
    told = [
        ("peak memory of the process", summary.get("peak_rss_mb")),
        ("of the device", summary.get("peak_device_mb")),
    ]
    rows = [(words, gigabytes(mb)) for words, mb in told if mb]
    ledger = summary.get("ledger") or {}
    return rows + ([("ledger of edits, on the disk", f"{ledger['bytes'] / 1e6:,.1f} MB")] if "bytes" in ledger else [])


# ------------------------------------------------------------------------------------------ shifts


def _norms(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Norms of the shifts by site along the edit batches, the steps of a batch added up; None where there are none."""
    batches = [found for row in rows if (found := batch_norms(row.get("shift_norm")))]
    sites = sorted({site for one in batches for site in one}, key=_in_order)
    if not sites:
        return None
    top = max(value for one in batches for value in one.values())
    digits = max(2 - math.floor(math.log10(top)), 0) if top > 0 else 0
    names, told = short(sites), []
    for site, name in zip(sites, names, strict=True):
        values = [one.get(site, 0.0) for one in batches]
        words = f"{name}: {values[0]:.3g} in the first batch, {values[-1]:.3g} in the last"
        ends = [f"{value:,.{digits}f}" for value in (values[0], values[-1], max(values))]
        told.append({"site": site, "name": name, "ends": ends, "picture": page_figures.strip(values, top, words)})
    columns = len(page_figures.averaged([0.0] * len(batches)))
    together = -(-len(batches) // columns)
    return {"rows": told, "top": f"{top:,.{digits}f}", "batches": len(batches), "together": together}


def batch_norms(steps: Any) -> dict[str, float]:
    """Each site's norms of one batch, summed over its edit steps; what is no such thing is left out."""
    found: dict[str, float] = {}
    for step in steps if isinstance(steps, list) else ():
        for site, value in step.items() if isinstance(step, dict) else ():
            if isinstance(value, (int, float)) and math.isfinite(value):
                found[site] = found.get(site, 0.0) + float(value)
    return found


def _in_order(site: str) -> list[tuple[int, str]]:
    """Layers by their numbers."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", site)]


def short(sites: Sequence[str]) -> list[str]:
    """The sites' names without the parts that all have in the same place, but with the last: `23.gate_proj`."""
    split = [site.split(".") for site in sites]
    if len(sites) < 2 or len({len(parts) for parts in split}) > 1:
        return list(sites)
    *before, _ = zip(*split, strict=True)
    telling = [place for place, those in enumerate(before) if len(set(those)) > 1]
    return [".".join([*(parts[place] for place in telling), parts[-1]]) for parts in split]


# ------------------------------------------------------------------------------------------ circumstances


def _stands_on(found: Found) -> list[tuple[str, str]]:
    """Model, data, seed, machine and versions, as far as they are known."""
    config, summary = found.config, found.summary
    device, host, mesh = (summary.get(name) or {} for name in ("device", "host", "mesh"))
    times = [record.time.replace("T", " ") for record in found.records]
    versions = [f"{name} {version}" for name, version in summary.get("versions", {}).items()]
    known = {
        "model": config.get("model.name_or_path"),
        "editor": config.get("editor.name"),
        "edit steps": config.get("editor.iters"),
        "facts": f"{config.get('num_seq')} x {config.get('dataset.n_edits')} of {config.get('dataset.name')}",
        "seed": config.get("seed"),
        "devices": device and f"{device['count']} x {device['kind']}",
        "mesh": mesh and " x ".join(f"{size} {axis}" for axis, size in mesh.items()),
        "processes": summary.get("processes"),
        "machine": host and f"{host['system']} {host['machine']}, {host['cpus']} cores",
        "versions": ", ".join(versions),
        "edited": times and (times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"),
    }
    return [(words, str(value)) for words, value in known.items() if value not in (None, "", {}, [])]


def command(config: Mapping[str, Any]) -> str:
    """A command that makes the run again: every field but those that the editor's name brings along.

    It goes out from `configs/common.py`; which file the run began with, its config does not tell.
    """
    editor = str(config.get("editor.name"))
    brought = {f"editor.{name}": value for name, value in settings.EDITORS.get(editor, {}).items()}
    brought |= {f"train.{name}": value for name, value in settings.TRAIN.items()}
    flags = [_flag(name, value) for name, value in config.items() if name not in brought or brought[name] != value]
    lines = [f"python launch.py --config=configs/common.py:editor={shlex.quote(editor)}", *flags]
    return " \\\n    ".join(lines)


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{'' if value else 'no'}config.{name}"
    flag = f"--config.{name}={_plain(value)}"
    return f'"{flag}"' if "'" in flag and not re.search(r'["$`\\!]', flag) else shlex.quote(flag)  # tuples have quotes


def _plain(value: Any) -> str:
    """A setting as a flag has it."""
    return repr(tuple(value)) if isinstance(value, (tuple, list)) else str(value)
