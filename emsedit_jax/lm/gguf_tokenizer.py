"""The tokenizer that a GGUF file describes -> the `tokenizers` library's, and what transformers needs to load it."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from emsedit_jax.errors import InputError
from emsedit_jax.lm import gguf_sentencepiece

CONTROL, USER_DEFINED = 3, 4  # llama.cpp's kinds of tokens that are matched whole in the text; 1 is an ordinary one

SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
LISTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges")
ADDED = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix")


def _single_digits() -> pre_tokenizers.PreTokenizer:
    """Every digit by itself, then GPT-2's words, spelled in bytes."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def build(fields: dict, length: int) -> tuple[Tokenizer, dict]:
    """The tokenizer, and the tokenizer_config.json with which transformers' AutoTokenizer loads it.

    Args:
      length: tokens that the model takes.

    Raises:
        InputError: a kind of tokenizer that is not understood.
    """
    kind, pre = str(fields.get("tokenizer.ggml.model")), str(fields.get("tokenizer.ggml.pre"))
    if (kind, pre) not in KINDS:
        known = ", ".join(f"{one!r} with {other!r}" for one, other in KINDS)
        raise InputError(
            f"the GGUF file's tokenizer {kind!r} with pre-tokenizer {pre!r} is not understood; known: {known}"
        )
    try:
        tokenizer = KINDS[kind, pre](fields)
    except Exception as error:
        if type(error) is not Exception:  # (the library's own faults have no class of their own)
            raise
        raise InputError(f"the GGUF file's tokenizer cannot be built: {error}") from error
    tokens = fields["tokenizer.ggml.tokens"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": length,
    }
    config |= {name: tokens[fields[key]] for name, key in SPECIAL.items() if key in fields}
    if template := fields.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return tokenizer, config


def _byte_level(fields: dict) -> Tokenizer:
    """Byte-level BPE: token list, merges, kinds."""
    if adds := [name for name in ADDED if fields.get(name)]:
        raise InputError(f"the GGUF file's tokenizer adds to the text by itself ({adds[0]}), which is not understood")
    if gone := [name for name in LISTS if name not in fields]:
        raise InputError(f"the GGUF file has no {gone[0]}: its tokenizer cannot be built")
    tokens, kinds, merges = (fields[name] for name in LISTS)
    merges = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = _single_digits()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(  # all are in the vocabulary, so they keep their ids
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


# GGUF only names the way text is cut before merging; what the names stand for is written down here.
KINDS = {("gpt2", "smollm"): _byte_level, ("llama", "default"): gguf_sentencepiece.build}
