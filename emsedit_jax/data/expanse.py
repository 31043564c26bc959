"""How much memory packed files take once they are unpacked, counted before they are: they may come from anybody.

A Parquet file keeps a text that comes often once, so a few bytes can stand for any number of long texts. Read as
dictionaries its columns take no more than that; what their rows take is counted from the lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emsedit_jax.errors import InputError

PARQUET = b"PAR1"  # what such a file begins with
_EXPANSE, _SPARE = 100, 2**28  # bytes that a byte of such a file may stand for, and that any file may take
_PIECE, _ROW, _VALUE = 1024, 64, 8  # rows unpacked at a time, and the least that a row and a value count for, in bytes
_UNCOUNTED = "DELTA"  # encodings whose texts are made of others, and that cannot be read as dictionaries


def check_parquet(path: Path) -> None:
    """Raises InputError where the file takes memory out of proportion to its size; else as the library does."""
    import pyarrow.parquet  # takes seconds, and few runs need it

    most, found = _SPARE + _EXPANSE * path.stat().st_size, 0
    with pyarrow.parquet.ParquetFile(path) as file:
        schema = [file.metadata.schema.column(number) for number in range(file.metadata.num_columns)]
    texts = [column.path for column in schema if column.physical_type == "BYTE_ARRAY"]
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
        for column in schema:
            _read_a_row(file, column.path)
        _check_encodings(path, file.metadata)
        _check(path, _declared(file.metadata), most)
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
        for piece in file.iter_batches(batch_size=_PIECE):
            found += sum(map(_taken, piece.columns)) + _ROW * piece.num_rows
            _check(path, found, most)


def check_folder(folder: Path) -> None:
    """The same of whatever `datasets` may read in a folder. Raises InputError for archives, too: none is unpacked."""
    from datasets.utils.extract import Extractor  # as above

    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or path.is_dir():
            continue  # (the library leaves hidden ones out)
        if not path.is_file():
            raise InputError(f"{path}: it is no regular file, but a device or pipe. Take it out of the folder.")
        if kind := Extractor.infer_extractor_format(path):
            raise InputError(f"{path}: it is an archive ({kind}). Unpack it, and take it out of the folder.")
        with path.open("rb") as file:
            is_parquet = file.read(len(PARQUET)) == PARQUET
        if is_parquet:
            check_parquet(path)


def _check(path: Path, found: int, most: int) -> None:
    if found > most:
        raise InputError(f"{path}: its rows take more than {most:,} bytes, unlike any text. Fetch it again.")


def _read_a_row(file: Any, column: str) -> None:
    """A row of each group: the library raises an error where what a group says of the column contradicts itself.

    It ends the program where that is asked for before anything is read.
    """
    for group in range(file.num_row_groups):
        try:
            next(file.iter_batches(batch_size=1, row_groups=[group], columns=[column]), None)
        except OSError as error:
            if "Not yet implemented" not in str(error):  # an encoding, which `_check_encodings` names
                raise


def _chunks(about: Any) -> Iterator[tuple[Any, Any]]:
    """(what the schema says, what a group says) of each column in each group; of groups that `_read_a_row` has seen."""
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in range(about.num_columns if group.num_rows else 0):
            yield about.schema.column(column), group.column(column)


def _check_encodings(path: Path, about: Any) -> None:
    """Raises InputError where a text's encoding has lengths that cannot be counted beforehand."""
    for column, chunk in _chunks(about):
        foreign = [one for one in chunk.encodings if one.startswith(_UNCOUNTED)]
        if foreign and column.physical_type == "BYTE_ARRAY":
            fault = f"its column '{column.path}' is encoded as {foreign[0]}, which is not read"
            raise InputError(f"{path}: {fault}. Write it as plain text or with a dictionary.")


def _declared(about: Any) -> int:
    """Bytes that the file says it takes: those of its pages, and of its values where these have one width."""
    found = _ROW * about.num_rows
    for column, chunk in _chunks(about):
        width = max(_VALUE, column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0)
        found += max(chunk.total_uncompressed_size, chunk.num_values * width)
    return found


def _taken(array: Any) -> int:
    """Bytes of an array once its dictionaries are gone."""
    import pyarrow.compute as compute  # as above
    from pyarrow import types

    if types.is_dictionary(array.type):
        lengths = compute.call_function("binary_length", [array.dictionary]).cast("int64")
        total = compute.call_function("sum", [lengths.take(array.indices)])
        return _VALUE * len(array) + (total.as_py() or 0)
    if types.is_struct(array.type):
        return sum(map(_taken, array.flatten()))
    if types.is_map(array.type):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return _VALUE * len(array) + sum(_taken(one.slice(first, last - first)) for one in (array.keys, array.items))
    if types.is_nested(array.type):  # lists; Parquet has no others
        return _VALUE * len(array) + _taken(array.flatten())
    return array.nbytes
