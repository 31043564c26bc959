"""Tokenizers from strangers that would end the library, and the program with it, are refused by name."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emsedit_jax.lm import tokenizer_bounds
from emsedit_jax.lm.model import load_tokenizer
from tests.lm.tiny_folder import change_tokenizer, charsmap, precompiled, write_tokenizer
from tests.refusals import refused

BPE = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "pair": [SEQUENCE], "special_tokens": {}}
UNKNOWN = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
LONG = bytes(9 * [255])  # says that it has 4 GB
ALONE = """
import resource, sys, pathlib
from emsedit_jax.lm.model import load_tokenizer
from transformers import AutoTokenizer  # takes more memory than what is tried
taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, taken + 2**30))
try:
    load_tokenizer(pathlib.Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tmp_path)
    return tmp_path


def test_a_map_of_characters_is_used(folder):
    change_tokenizer(folder, normalizer=precompiled(charsmap()), model=BPE | {"vocab": {"q": 0, "Q": 1}, "merges": []})
    assert load_tokenizer(folder)("Q")["input_ids"] == [0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "must be non-zero"),
        ({"post_processor": TEMPLATE | {"single": [UNKNOWN, SEQUENCE]}}, "no entry found"),
        ({"post_processor": TEMPLATE | {"single": [{"Sequence": {"id": "B", "type_id": 0}}]}}, "out of bounds"),
        ({"model": BPE | {"continuing_subword_prefix": 99 * "#"}}, "out of range"),
    ],
)
def test_what_makes_the_library_panic_is_told(folder, fields, says):
    change_tokenizer(folder, **fields)
    with refused(str(folder), "the tokenizer cannot be loaded (PanicException", says):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bytes(3), "says 0 bytes of itself and has 0"),
        (LONG, "says 4,294,967,295 bytes of itself and has 5"),
        (bytes(8), "says 0 bytes of itself and has 4"),
        (b"\6\0\0\0" + bytes(8), "says 6 bytes of itself and has 8"),
        (charsmap(root=2**12), "leads out of itself"),
        (charsmap(leaf=3), "leads to no text"),
        (charsmap(leaf=1, texts="é".encode()), "leads to no text"),
    ],
)
def test_a_map_of_characters_that_goes_past_its_end_is_refused(folder, content, says):
    change_tokenizer(folder, normalizer={"type": "Sequence", "normalizers": [precompiled(content)]})
    with refused(str(folder / "tokenizer.json"), "map of characters", says):
        tokenizer_bounds.check(folder)


def test_the_end_of_the_texts_is_a_text(folder):
    change_tokenizer(folder, normalizer=precompiled(charsmap(leaf=2)))
    load_tokenizer(folder)("Q")


def test_a_map_of_characters_that_is_no_base64_is_refused(folder):
    change_tokenizer(folder, normalizer={"type": "Precompiled", "precompiled_charsmap": "A?"})
    with refused(str(folder / "tokenizer.json"), "is not base64"):
        tokenizer_bounds.check(folder)


def test_of_fields_that_come_twice_and_of_other_files_all_are_looked_at(folder):
    good, bad = (f'"precompiled_charsmap": "{base64.b64encode(one).decode()}"' for one in (charsmap(), LONG))
    (folder / "tokenizer.json").write_text(f"{{{bad}, {good}}}")
    with refused(str(folder / "tokenizer.json"), "bytes of itself"):
        tokenizer_bounds.check(folder)
    write_tokenizer(folder)
    (folder / "tokenizer.4.0.json").write_text(f"{{{bad}}}")  # a configuration may name it instead
    with refused(str(folder / "tokenizer.4.0.json"), "bytes of itself"):
        tokenizer_bounds.check(folder)


def test_a_token_may_be_called_as_the_map_is(folder):
    change_tokenizer(folder, model=BPE | {"vocab": {"precompiled_charsmap": 0}, "merges": []})
    tokenizer_bounds.check(folder)


def test_a_pipe_in_place_of_a_file_is_refused(folder):
    os.mkfifo(folder / "vocab.txt")
    with refused(str(folder / "vocab.txt"), "a device or pipe"):
        load_tokenizer(folder)


def test_a_map_that_asks_for_gigabytes_ends_no_program(folder):
    change_tokenizer(folder, normalizer=precompiled(LONG))
    command = [sys.executable, "-c", ALONE, str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"InputError {folder / 'tokenizer.json'}: the tokenizer cannot be loaded")
