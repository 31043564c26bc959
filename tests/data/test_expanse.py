"""Parquet files from strangers: what they take in memory is counted before it is taken."""

import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from emsedit_jax.data import expanse
from emsedit_jax.data.records import load
from tests.refusals import refused

LONG = 4_000_000  # letters of a text that stands once in a file, for thousands of rows
ALONE = """
import pathlib, resource, sys
from emsedit_jax.data import tables
import datasets, pyarrow.parquet
from emsedit_jax.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    tables.parquet_rows(sys.argv[1], b"PAR1")
except InputError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
"""


def test_a_parquet_file_that_unpacks_to_far_more_than_itself_is_refused(tmp_path, monkeypatch):
    path, rows = tmp_path / "facts.parquet", [{"prompt": "p" * 1000, "answer": "a"}] * 5000
    datasets.Dataset.from_list(rows).to_parquet(path)
    assert len(load("facts", path, role="eval")) == 5000
    monkeypatch.setattr(expanse, "_SPARE", 2**20)
    assert path.stat().st_size < 20_000
    with refused(f"{path}: its rows take more than", "unlike any text"):
        load("facts", path, role="eval")


def repeated(path, *, lists):
    """A file with a long text in 2,000 rows, or 2,000 times in one."""
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2000, pyarrow.int32()), pyarrow.array(["p" * LONG]))
    columns = {"prompt": texts, "answer": texts}
    if lists:
        ends = pyarrow.array([0, 2000], pyarrow.int32())
        columns = {"prompt": pyarrow.array(["p"]), "paraphrases": pyarrow.ListArray.from_arrays(ends, texts)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, store_schema=False)
    return path


@pytest.mark.parametrize("lists", [False, True])
def test_a_text_that_is_repeated_is_counted_before_it_takes_memory(tmp_path, lists):
    path = repeated(tmp_path / "facts.parquet", lists=lists)
    command = [sys.executable, "-c", ALONE, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    megabytes, _, message = done.stdout.partition(" ")
    assert message.startswith(f"{path}: its rows take more than"), done.stderr
    assert int(megabytes) < 200  # its rows would take 8,000 or more


def test_texts_in_lists_objects_and_maps_are_counted(tmp_path):
    texts = pyarrow.array([["aaa", "b"], [], None, ["cc"]])
    maps = pyarrow.array([[("k", "vv")], [], None, [("kk", "v"), ("k", "v")]], pyarrow.map_(*2 * [pyarrow.string()]))
    objects = pyarrow.array([{"p": "aa", "n": 1}, None, {"p": None, "n": 2}, {"p": "b", "n": 3}])
    path = tmp_path / "facts.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"t": texts, "m": maps, "o": objects}), path)
    names = ["t.list.element", "m.key_value.key", "m.key_value.value", "o.p"]
    with pyarrow.parquet.ParquetFile(path, read_dictionary=names) as file:
        (piece,) = file.iter_batches()
    counted = dict(zip(piece.schema.names, map(expanse._taken, piece.columns), strict=True))
    assert counted["t"] == 6 + 8 * (4 + 3)  # letters, and so much for each list and each text
    assert counted["m"] == 8 + 8 * (4 + 2 * 3)
    assert 0 <= counted["o"] - (3 + 8 * 4 + 4 * 8) <= 8  # the numbers, and which of them are none
    assert expanse._taken(piece.column(1).slice(3)) == 5 + 8 * (1 + 2 * 2)


def test_values_of_one_width_are_counted_by_what_the_file_says(tmp_path, monkeypatch):
    path = tmp_path / "facts.parquet"
    texts = pyarrow.array([b"p" * 1000] * 5000, pyarrow.binary(1000))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": texts}), path)
    monkeypatch.setattr(expanse, "_SPARE", 2**20)
    read = pyarrow.parquet.ParquetFile.iter_batches

    def a_row(self, *, batch_size, **more):
        assert batch_size == 1
        return read(self, batch_size=batch_size, **more)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", a_row)
    with refused(f"{path}: its rows take more than"):
        load("facts", path, role="eval")


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_texts_that_are_made_of_others_are_not_read(tmp_path, encoding):
    path = tmp_path / "facts.parquet"
    how = {"use_dictionary": False, "column_encoding": {"prompt": encoding}}
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["p", "pp"]}), path, **how)
    with refused(f"{path}: its column 'prompt' is encoded as {encoding}, which is not read. Write it as"):
        load("facts", path, role="eval")


def test_a_folder_s_files_are_bounded_too(tmp_path):
    repeated(tmp_path / "test.parquet", lists=False)
    with refused(f"{tmp_path / 'test.parquet'}: its rows take more than"):
        load("facts", f"hf:{tmp_path}", role="eval")


EVERY_BIT = """
import pathlib, sys
from emsedit_jax.data import tables
from emsedit_jax.errors import InputError
good, found = pathlib.Path(sys.argv[1]).read_bytes(), 0
changed = pathlib.Path(sys.argv[1] + ".changed")
footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
for bit in range(8 * footer, 8 * len(good), int(sys.argv[2])):
    now = bytearray(good)
    now[bit // 8] ^= 1 << bit % 8
    changed.write_bytes(now)
    try:
        list(tables.parquet_rows(str(changed), b"PAR1"))
    except InputError:
        found += 1
print(found)
"""


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.long)])
def test_no_bit_of_what_a_file_says_of_itself_ends_the_program(tmp_path, step):
    """The library does not throw everything that it finds wrong there: some of it ends the process."""
    path = tmp_path / "facts.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["Where is Peru?"], "answer": ["Mali"]}), path)
    command = [sys.executable, "-c", EVERY_BIT, str(path), str(step)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 10
