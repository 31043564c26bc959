"""The facts that come with the package: where their files lie, and their rows as they are."""

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
