"""The JSON files of a model's folder, which may come from anybody: bounded before they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emsedit_jax import disk
from emsedit_jax.errors import InputError

MOST_BYTES = 2**28  # of one file: the longest tokenizers and shard indexes of published models take a tenth of it
READ = (".json", ".txt", ".model", ".jinja")  # what a tokenizer may be made of


def read(path: Path, objects: Callable[[Sequence[tuple[str, Any]]], dict[str, Any]] = dict) -> dict[str, Any]:
    """The object in the file; `objects` makes each within it of its fields, in their order.

    Raises InputError where it is missing, too long, no JSON, or holds something else.
    """
    try:
        found = json.loads(disk.content(path, MOST_BYTES).decode("utf-8"), object_pairs_hook=objects)
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; give a folder with config.json, *.safetensors and tokenizer.json."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as JSON: {why}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} cannot be read: it should hold a JSON object.")
    return found


def check_sizes(folder: Path) -> None:
    """Before a library reads a tokenizer's files. Raises InputError where one is too long, or need have no end."""
    for path in sorted(folder.iterdir()):
        if path.suffix not in READ or path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            raise InputError(f"{path} is no regular file, but a device or pipe; fetch the model again.")
        if path.stat().st_size > MOST_BYTES:
            about = f"longer than any such file of a model ({MOST_BYTES:,} bytes)"
            raise InputError(f"{path} is {about}; fetch the model again.")
