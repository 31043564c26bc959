"""Readers of files and flags from strangers: of each kind a good one, and what reads any bytes in its place.

Both `test_fuzz.py` and `coverage_guided.py` feed them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet

from emsedit_jax.data import records
from emsedit_jax.errors import InputError
from emsedit_jax.lm import families, gguf_files, hf
from emsedit_jax.lm.identity import Identity
from emsedit_jax.lm.model import load_tokenizer
from emsedit_jax.run import arrays, cli, ledger, ledger_files
from emsedit_jax.types import SiteGroup
from tests.lm import tiny_folder, tiny_gguf
from tests.run import tiny

ROWS = json.loads((tiny.DATA / "zsre_eval.json").read_text())[:3]
FACTS = [{"prompt": "Where is Peru?", "answer": "South America"}, {"prompt": "Where is Mali?", "answer": "Africa"}]
CONFIG = str(tiny.ROOT / "configs/quickstart.py")
SITES = (SiteGroup(3, 2, layers=(0, 1), modules=("mlp.up", "mlp.up"), names=("a.0", "a.1")),)


class Reader(NamedTuple):
    """A good file's bytes, and what reads others; nothing but an InputError may come of it."""

    good: bytes
    read: Callable[[bytes], Any]


def refused_or_read(read: Callable, *args) -> Any:
    """What is read; None where it is refused by name."""
    try:
        return read(*args)
    except InputError:
        return None


def _rows(form: str, good: bytes, name: str) -> Callable[[Path], Reader]:
    def made(folder: Path) -> Reader:
        path = folder / f"rows.{form}"

        def read(content: bytes) -> Any:
            path.write_bytes(content)
            return records.read(name, path, role="eval")

        return Reader(good, read)

    return made


def _parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(FACTS), sink)
    return sink.getvalue().to_pybytes()


def _weights(folder: Path) -> Reader:
    config, _ = families.read_folder(_model(folder))
    return _file(folder / "model.safetensors", lambda: hf.load_params(folder, config))


def _parameters(folder: Path) -> Reader:
    _model(folder)
    return _file(folder / "config.json", lambda: hf.load_params(folder, *families.read_folder(folder)))


def _index(folder: Path) -> Reader:
    shutil.move(_model(folder) / "model.safetensors", folder / "model-1.safetensors")
    with hf.open_file(folder / "model-1.safetensors") as file:
        weight_map = dict.fromkeys(file.keys(), "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return _file(folder / "model.safetensors.index.json", lambda: hf.stored_dtype(folder))


def _tokenizer(folder: Path) -> Reader:
    tiny_folder.write_tokenizer(folder)
    tiny_folder.change_tokenizer(folder, normalizer=tiny_folder.precompiled(tiny_folder.charsmap()))
    return _file(folder / "tokenizer.json", lambda: load_tokenizer(folder))


def _gguf(folder: Path) -> Reader:
    tiny_gguf.write_gguf(folder / "model.gguf")
    return _file(folder / "model.gguf", lambda: gguf_files.convert(folder / "model.gguf", folder))


def _arrays(folder: Path) -> Reader:
    arrays.write(folder / "edits.safetensors", {"a": np.arange(6, dtype=np.float32)}, "edits", {"model": "m"})
    return _file(folder / "edits.safetensors", lambda: arrays.read(folder / "edits.safetensors", "edits", ""))


def book(folder: Path) -> ledger.Ledger:
    """A ledger of one batch."""
    made = ledger.create(folder, Identity("m", "w"), SITES)
    steps: Any = [[(np.ones((2, 1, 3), np.float32), np.ones((2, 1, 2), np.float32))]]
    digest = ledger_files.write(folder / ledger_files.name_of(1), steps)
    row = {"id": "row 1", "subject": "Peru", **FACTS[0]}
    made.append(ledger.EDIT, [row], {"ES": 1.0}, ledger_files.name_of(1), digest)
    return made


def _ledger(folder: Path) -> Reader:
    book(folder)
    return _file(folder / ledger.NAME, lambda: ledger.read(folder))


def factors(found: ledger.Ledger) -> Any:
    """A batch's file as it is, believed: whoever writes a ledger can write digests that fit."""
    (record,) = found.records
    digest = hashlib.sha256((found.path / record.file).read_bytes()).hexdigest()
    return ledger_files.load(found, dataclasses.replace(record, sha256=digest))


def _factors(folder: Path) -> Reader:
    found = book(folder)
    return _file(folder / found.records[0].file, lambda: factors(found))


def _flags(folder: Path) -> Reader:
    def read(content: bytes) -> Any:
        return cli.read(["launch.py", f"--config={CONFIG}", *content.decode("utf-8", "surrogateescape").split("\n")])

    return Reader(b"--config.seed=1\n--workdir=runs/x", read)


def _model(folder: Path) -> Path:
    return shutil.copytree(tiny.MODEL, folder, dirs_exist_ok=True)


def _file(path: Path, read: Callable[[], Any]) -> Reader:
    def replaced(content: bytes) -> Any:
        path.write_bytes(content)
        return read()

    return Reader(path.read_bytes(), replaced)


READERS: dict[str, Callable[[Path], Reader]] = {  # each takes an empty folder
    "rows.json": _rows("json", json.dumps(ROWS).encode(), "zsre"),
    "rows.jsonl": _rows("jsonl", "\n".join(map(json.dumps, FACTS)).encode(), "facts"),
    "rows.csv": _rows("csv", b"prompt,answer\nWhere is Peru?,South America\n", "facts"),
    "rows.parquet": _rows("parquet", _parquet(), "facts"),
    "model.safetensors": _weights,
    "config.json": _parameters,
    "model.safetensors.index.json": _index,
    "tokenizer.json": _tokenizer,
    "model.gguf": _gguf,
    "edits.safetensors": _arrays,
    "ledger.jsonl": _ledger,
    "factors": _factors,
    "flags": _flags,
}
