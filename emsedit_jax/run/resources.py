"""What a run stands on and costs: devices, versions, memory, seconds of compilation."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from emsedit_jax import sharding
from emsedit_jax.lm import assets

VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy")

_COMPILED = "/jax/core/compile/backend_compile_duration"  # one per program, also when the cache had it
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


def describe() -> dict[str, Any]:
    """Devices and versions, for summary.json."""
    devices = jax.devices()
    return {
        "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "mesh": {axis: sharding.size(axis) for axis in (sharding.DATA, sharding.MODEL)},
        "processes": jax.process_count(),
        "host": {"system": platform.system(), "machine": platform.machine(), "cpus": cpu_count()},
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
    }


def devices_line() -> str:
    """The devices in words: `1 x cpu (2 cores), jax 0.10.2`."""
    devices = jax.devices()
    kind = f"{cpu_count()} cores" if devices[0].platform == "cpu" else devices[0].device_kind
    return f"{len(devices)} x {devices[0].platform} ({kind}), jax {jax.__version__}"


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_rss_mb() -> float:
    """The most memory this process has held so far, in MB (2^20 bytes)."""
    found = _held_mb("VmHWM")  # getrusage on Linux also counts what the process that started this one held
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def rss_mb() -> float | None:
    """The memory this process holds now, in MB (2^20 bytes); None where the system does not tell."""
    return _held_mb("VmRSS")


def _held_mb(field: str) -> float | None:
    """A field of Linux's account of this process."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return None


def peak_device_mb() -> float | None:
    """The most memory held on the busiest accelerator, in MB (2^20 bytes); None where it is not counted, as on CPU."""
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    peaks = [peak for peak in found if peak is not None]
    return max(peaks) / 2**20 if peaks else None


def use_compile_cache() -> None:
    """Keeps compiled programs between runs, in the package's cache folder."""
    jax.config.update("jax_compilation_cache_dir", str(assets.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def peaks_mb() -> dict[str, float]:
    """Both peaks so far, those that are counted: of the `host` process, and of its busiest `device`."""
    device = peak_device_mb()
    return {"host": round(peak_rss_mb(), 1)} | ({} if device is None else {"device": round(device, 1)})


class CompileClock:
    """Adds up XLA's compilation while it is open.

    with CompileClock() as clock:
        ...
    clock.seconds  # spent compiling, or fetching compiled programs from the persistent cache
    clock.programs, clock.cache_hits  # programs made ready; those of them that the cache had
    """

    def __init__(self) -> None:
        self.seconds, self.programs, self.cache_hits = 0.0, 0, 0

    def __enter__(self) -> CompileClock:
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)

    def _on_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            self.seconds += duration_secs
            self.programs += 1

    def _on_event(self, event: str, **_: Any) -> None:
        self.cache_hits += event == _CACHE_HIT
