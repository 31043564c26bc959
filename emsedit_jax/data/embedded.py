"""What comes with the package: where the facts lie, their rows as they are, and a running text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent / "worldfacts"
SPLITS: tuple[Literal["train", "eval"], ...] = ("train", "eval")


def path(split: Literal["train", "eval"]) -> Path:
    """The file of one split, for `records.load("worldfacts", ...)`."""
    return FOLDER / f"{split}.jsonl"


def rows(split: Literal["train", "eval"]) -> list[dict[str, Any]]:
    """All rows of one split, in file order, with the fields `records` does not take (relation, answer_true, ...)."""
    return [json.loads(line) for line in path(split).read_text(encoding="utf-8").splitlines() if line]


def running_text() -> str:
    """A page of plain English that was written for this package, so that no model was trained on it."""
    return (Path(__file__).parent / "running_text" / "everyday.txt").read_text(encoding="utf-8")
