"""The tokenizer of a GGUF file: token ids by hand, round trip, and what AutoTokenizer makes of the two files."""

import pytest
import transformers

from emsedit_jax.errors import InputError
from emsedit_jax.lm import gguf_files, gguf_tokenizer
from tests.lm.tiny_gguf import TEMPLATE, TOKENS, write_gguf


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_gguf(folder / "m.gguf")
    gguf_files.convert(folder / "m.gguf", folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the", ["t", "he"]),  # no space is put before the first word, so Ġt is not there to merge
        ("a the", ["a", "Ġthe"]),
        ("é", ["Ã", "©"]),
        ("112", ["1", "1", "2"]),  # digits stay single although a merge of 1 and 2 exists
        ("a 12", ["a", "Ġ", "1", "2"]),  # and Ġ stays apart from a digit
        ("a  1", ["a", "ĠĠ", "1"]),  # the digits are cut off first: both spaces are one word
        ("\nx", ["Ċ", "x"]),
        ("<|im_start|>he<|im_end|>", ["<|im_start|>", "he", "<|im_end|>"]),
    ],
)
def test_pieces(tokenizer, text, pieces):
    ids = tokenizer(text)["input_ids"]
    assert ids == [TOKENS.index(piece) for piece in pieces]
    assert tokenizer.decode(ids) == text


def test_special_tokens_and_template(tokenizer):
    specials = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    assert specials == ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert len(tokenizer) == len(TOKENS)
    assert tokenizer.decode([0, 3, 2], skip_special_tokens=True) == "!"
    assert tokenizer.chat_template == TEMPLATE


def test_user_defined_tokens_are_whole_but_not_special():
    fields = {
        "llama.context_length": 8,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<s>", "a", "b", "<think>"],
        "tokenizer.ggml.token_type": [3, 1, 1, 4],
        "tokenizer.ggml.merges": [],
    }
    built, _ = gguf_tokenizer.build(fields, 8)
    assert built.encode("a<think>b").ids == [1, 3, 2]
    assert built.decode([0, 1, 3, 2], skip_special_tokens=True) == "a<think>b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer 'llama'"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "pre-tokenizer 'llama-bpe'"),
        ({"tokenizer.ggml.add_bos_token": True}, r"adds to the text by itself \(tokenizer.ggml.add_bos_token\)"),
        ({"tokenizer.ggml.merges": ["zebra a"]}, r"tokenizer cannot be built: .*Token `zebra` out of"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, change, message):
    write_gguf(tmp_path / "m.gguf", fields=change)
    with pytest.raises(InputError, match=message):
        gguf_files.convert(tmp_path / "m.gguf", tmp_path)
