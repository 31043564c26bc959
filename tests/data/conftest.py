"""A tokenizer small enough to read (one token for each letter, `<bos>` before prompts), and files of rows."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VOCABULARY = ["<bos>", *"abcdefghijklmnopqrstuvwxyz?"]


@pytest.fixture(scope="session")
def letters() -> PreTrainedTokenizerFast:
    """`letters(["a b"])["input_ids"] == [[0, 1, 2]]`: a is 1, b 2, ... and ? 27; anything else is dropped."""
    bare = Tokenizer(models.BPE({letter: i for i, letter in enumerate(VOCABULARY)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bare.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<bos>")


@pytest.fixture
def write(tmp_path):
    """`write(rows)` or `write(text)` puts a file down and returns its path."""

    def write(content, name="facts.json"):
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write
