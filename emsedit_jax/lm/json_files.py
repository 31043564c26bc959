"""The JSON files of a model's folder, which may come from anybody: bounded before they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emsedit_jax.errors import InputError

MOST_BYTES = 2**28  # of one file: the longest tokenizers and shard indexes of published models take a tenth of it
READ = (".json", ".txt", ".model", ".jinja")  # what a tokenizer may be made of


def read(path: Path) -> dict[str, Any]:
    """The object in the file.

    Raises InputError where it is missing, too long, no JSON, or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # (not by its size: a device has none, and no end)
        if len(content) > MOST_BYTES:
            raise _too_long(path)
        found = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; give a folder with config.json, *.safetensors and tokenizer.json."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} cannot be read: it should hold a JSON object.")
    return found


def check_sizes(folder: Path) -> None:
    """Before a library reads a tokenizer's files. Raises InputError where one is too long."""
    for path in sorted(folder.iterdir()):
        if path.suffix in READ and path.is_file() and path.stat().st_size > MOST_BYTES:
            raise _too_long(path)


def _too_long(path: Path) -> InputError:
    return InputError(f"{path} is longer than any such file of a model ({MOST_BYTES:,} bytes); fetch the model again.")
