"""A tokenizer small enough to read: one token for each letter, `<bos>` before prompts."""

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
