"""The rows of metrics.jsonl as a file that grows along a run: how much of it belongs to what a run has saved."""

from __future__ import annotations

import os
from pathlib import Path

from emsedit_jax import disk
from emsedit_jax.run import storing
from emsedit_jax.run.prepare import say


def settled(metrics: Path) -> int:
    """Its bytes, once the disk has them all, so that what is saved beside it can count on them."""
    if not storing.writes() or not metrics.exists():
        return 0
    with storing.writing(metrics):
        with metrics.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        disk.sync_folder(metrics.parent)
    return size


def drop(metrics: Path, length: int) -> None:
    """Takes away what is behind so many bytes: rows of what a run had not saved when it was broken off."""
    if storing.writes() and _size(metrics) > length:
        with storing.writing(metrics), metrics.open("rb+") as file:
            file.truncate(length)


def left(metrics: Path, length: int) -> int:
    """How many of so many bytes are there: all, or those of its whole rows, and that others are lost is told."""
    if not storing.writes() or (size := _size(metrics)) >= length:
        return length
    with storing.reading(metrics):
        there = metrics.read_bytes().rfind(b"\n") + 1 if size else 0
    drop(metrics, there)
    say("warning", f"{metrics} is cut short, at {there} bytes of {length}: those rows are lost, and nothing else")
    return there


def _size(metrics: Path) -> int:
    return metrics.stat().st_size if metrics.exists() else 0
