"""Rows through the `datasets` library: Parquet files, and data sets of the Hugging Face hub (or folders like one).

No code of a data set is run: `datasets` 4 and later have given that up. Of what the library does to rows, two things
are undone here: fields that a row does not have, which it fills with nulls, are gone again, and its errors become one
line of ours. Texts that it takes for dates stay dates, since how they were written is lost; a reader refuses them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emsedit_jax.data import expanse
from emsedit_jax.data.cues import Role
from emsedit_jax.data.fields import RowFault
from emsedit_jax.errors import InputError, near

PREFIX = "hf:"
USAGE = "hf:org/name, hf:org/name:split or hf:org/name/config:split"
# the first there is; what is trained on is evaluated with only where it is named
_SPLITS: dict[Role, tuple[str, ...]] = {"train": ("train",), "eval": ("validation", "test")}
_PURPOSE: dict[Role, str] = {"train": "to train on", "eval": "to evaluate with"}
_LONGEST = 300  # characters of a message of the library: some hold whole schemas


class Place(NamedTuple):
    """A data set of the hub, or a folder of files that the library reads as one."""

    repo: str
    config: str | None
    split: str | None


@dataclass(frozen=True)
class TableRows(Sequence):
    """Rows of a table, made into objects when they are asked for; a field that is null is none."""

    data: Any  # a datasets.Dataset

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: Any) -> Any:
        try:
            return _without_nulls(self.data[number])
        except UnicodeDecodeError:
            return RowFault("it holds text that is not UTF-8")


def is_hub(path: str | Path) -> bool:
    """Whether the path names a data set of the hub."""
    return isinstance(path, str) and path.startswith(PREFIX)


def parse_place(words: str) -> Place:
    """`"hf:org/name/config:split"` in its parts. Raises: InputError for anything else."""
    name, marked, split = words.removeprefix(PREFIX).partition(":")
    parts = name.split("/")
    if marked and not split.strip():
        raise InputError(f"{words}: no split is named behind the colon; data sets are named {USAGE}.")
    if name.strip() and Path(name).is_dir():
        return Place(name, None, split or None)
    if len(parts) not in (2, 3) or not all(part.strip() for part in parts):
        raise InputError(f"{words}: data sets of the hub are named {USAGE}.")
    return Place("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or None)


def hub_rows(words: str, role: Role) -> tuple[str, TableRows]:
    """(name with its split, rows) of a data set that is named as `USAGE` has it; fetched once, then from the cache.

    Where no split is named it is the role's own: never `train` to evaluate with, which would score what was trained on.

    Raises: InputError where it cannot be had, or has no such split.
    """
    import datasets  # takes seconds, and few runs need it

    place = parse_place(words)
    with _quietly():
        try:
            if Path(place.repo).is_dir():
                expanse.check_folder(Path(place.repo))
            found = datasets.load_dataset(place.repo, place.config)
        except InputError:
            raise
        except Exception as error:  # whatever it raises, of whichever of its libraries, is about what was asked for
            raise InputError(
                f"{words}: the data set cannot be had ({_why(error)}). Check its name and the connection, or give its "
                "file by path."
            ) from error
    splits = [str(split) for split in found]
    wanted = [place.split] if place.split else _SPLITS[role]
    split = next((one for one in wanted if one in splits), None)
    if split is None:
        asked = place.split or f"{' or '.join(wanted)} {_PURPOSE[role]}"
        raise InputError(
            f"{words}: it has no split {asked}.{near(wanted[0], splits)} It has {', '.join(splits)}; name one as "
            f"{PREFIX}{words.removeprefix(PREFIX).partition(':')[0]}:{splits[0]}."
        )
    folder = Path(place.repo)
    name = folder.name if folder.is_dir() else place.repo
    return f"{name}/{place.config}:{split}" if place.config else f"{name}:{split}", TableRows(found[split])


def parquet_rows(path: str | Path, magic: bytes) -> TableRows:
    """The rows of a Parquet file that begins with `magic`. Raises: InputError where it is none."""
    import datasets  # as above

    if magic != expanse.PARQUET:
        raise InputError(f"{path}: it is no Parquet file. Correct the suffix, or fetch the file again.")
    with _quietly(), tempfile.TemporaryDirectory() as cache:
        try:
            expanse.check_parquet(Path(path))
            return TableRows(datasets.Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True))
        except InputError:
            raise
        except Exception as error:  # as above
            raise InputError(f"{path}: the file cannot be read ({_why(error)}). Fetch it again.") from error


def _why(error: BaseException) -> str:
    """What lies at the bottom of an error, in one line that is not too long."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the library's bars and warnings off the screen: what goes wrong is told in one line of ours."""
    import datasets  # as above

    shown, level = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
