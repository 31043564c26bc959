"""A SentencePiece token list in a GGUF file (pieces, scores, kinds) -> the `tokenizers` library's BPE.

SentencePiece joins, again and again, the two neighbours whose joint piece has the best score. The library wants that as
a list of pairs, best first: every way to cut a piece into two known ones, in the order of the pieces' scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from emsedit_jax.errors import InputError

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6  # llama.cpp's kinds of tokens
SPACE = "\u2581"  # what stands for a space in the pieces
LISTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")


def build(fields: dict) -> Tokenizer:
    """The tokenizer. Raises InputError for one that is not understood."""
    if gone := [name for name in LISTS if name not in fields]:
        raise InputError(f"the GGUF file has no {gone[0]}: its tokenizer cannot be built")
    for name in ("tokenizer.ggml.add_space_prefix", "tokenizer.ggml.add_eos_token"):
        if fields.get(name):
            raise InputError(f"the GGUF file's tokenizer adds to the text by itself ({name}), which is not understood")
    tokens, scores, kinds = (fields[name] for name in LISTS)
    unknown = tokens[fields["tokenizer.ggml.unknown_token_id"]]
    tokenizer = Tokenizer(
        models.BPE(
            {token: place for place, token in enumerate(tokens)},
            pairs(tokens, scores, kinds),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(kind == BYTE for kind in kinds),
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    if fields.get("tokenizer.ggml.add_bos_token"):
        place = fields["tokenizer.ggml.bos_token_id"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[place]} $A",
            pair=f"{tokens[place]} $A {tokens[place]} $B",
            special_tokens=[(tokens[place], place)],
        )
    tokenizer.add_tokens(  # all are in the vocabulary, so they keep their ids
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


def pairs(tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """Every way to cut a piece into two pieces, those of the best pieces first."""
    pieces = {
        token: place
        for place, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (NORMAL, USER_DEFINED)
    }
    found = []
    for token, place in pieces.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in pieces and right in pieces:
                found.append((-scores[place], place, pieces[left], pieces[right], left, right))
    found.sort()
    return [(left, right) for *_, left, right in found]
