"""A loaded language model: config, params and tokenizer of one folder."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emsedit_jax import sharding
from emsedit_jax.errors import InputError, near
from emsedit_jax.lm import assets, decoder, hf, tokenizer_bounds
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.families import read_folder
from emsedit_jax.lm.generate import Sampling, continuations
from emsedit_jax.lm.params import Params
from emsedit_jax.types import Deltas, Sites

_TRIAL = ("The capital of France is Paris, 1950.", "  caf\u00e9\n\u6771\u4eac \ufb01")  # words, figures, other scripts
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class LM:
    """A language model and its tokenizer; `params` are never changed, an edit is a separate tree of deltas."""

    config: LMConfig
    params: Params
    tokenizer: Any
    folder: pathlib.Path

    def logits(self, token_ids: Int[Any, "b t"], attention_mask: Int[Any, "b t"]) -> Float[Array, "b t V"]:
        """Logits at every position, float32; positions count from column 0, columns with mask 0 are not seen.

        Raises InputError for ids outside the vocabulary, a mask that does not fit them, and too many columns.
        """
        ids, mask = np.asarray(token_ids), np.asarray(attention_mask)
        if ids.shape != mask.shape or not np.isin(mask, (0, 1)).all():
            raise InputError(f"the mask must hold a 0 or 1 for each of the {ids.shape} token ids.")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.config.vocabulary:
            raise InputError(f"token ids must be from 0 to {self.config.vocabulary - 1}.")
        if self.config.learned_positions and np.shape(token_ids)[1] > self.config.max_length:
            known = f"this model has learned {self.config.max_length} positions"
            raise InputError(f"{np.shape(token_ids)[1]} columns of tokens: {known}.")
        return _all_logits(self.config, self.params, jnp.asarray(ids), jnp.asarray(mask))

    def check_tokens(self, ids: Iterable[Sequence[int]]) -> None:
        """Raises InputError for a token id that the model has no row for: looked up, it would be taken for the last."""
        largest = max((max(row, default=0) for row in ids), default=0)
        if largest >= self.config.vocabulary:
            raise InputError(
                f"{self.folder}: its tokenizer gives the token id {largest}, but the model's vocabulary ends at "
                f"{self.config.vocabulary - 1}; put the tokenizer.json there that belongs to the model."
            )

    def generate(
        self,
        texts: Sequence[str],
        max_new_tokens: int = 32,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        sites: Sites = (),
        deltas: Deltas | None = None,
    ) -> list[str]:
        """How the model goes on after each text, up to an end-of-text token; positions count from a text's first token.

        Args:
          temperature: 0 takes the likeliest token; above 0 tokens are drawn, the same ones for the same seed.
          top_k, top_p: draw from so many of the likeliest tokens (0: all), or from those with this share together.
          deltas: edits in force, with their sites.

        Raises InputError for a single text in place of a list, an empty text, and settings that mean nothing.
        """
        if isinstance(texts, str):
            raise InputError("generate takes a list of texts; put the one text into brackets.")
        sampling = Sampling(float(temperature), top_k, float(top_p))
        whole = self.config, self.params, self.tokenizer, texts, max_new_tokens
        return continuations(*whole, sites, deltas, sampling=sampling, seed=seed)


@functools.partial(jax.jit, static_argnums=0)
def _all_logits(config: LMConfig, params: Params, tokens_bt: Array, mask_bt: Array) -> Array:
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    x_btd = decoder.prefix(config, params, config.num_layers, tokens_bt, positions_bt, mask_bt)
    return sharding.lay(decoder.logits(config, params, x_btd), None, None, None)


def load_lm(
    name_or_path: str | pathlib.Path,
    dtype: str = "auto",
    *,
    accept_terms: bool = False,
    progress: Callable[[str], None] | None = None,
) -> LM:
    """Loads a model by asset name (`smollm2-135m`) or from a Hugging Face folder; `auto` keeps the files' dtype.

    Args:
      accept_terms: the terms of use of a model that has some are accepted (`gemma3-270m`).
      progress: is told, in words, of a download or conversion.

    Raises InputError for whatever is wrong with the name, the folder or its files.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r} (known: {', '.join(DTYPES)}).{near(dtype, DTYPES)}")
    folder = assets.resolve(str(name_or_path), accept_terms=accept_terms, progress=progress)
    config, faults = read_folder(folder)
    config = dataclasses.replace(config, dtype=hf.stored_dtype(folder) if dtype == "auto" else dtype)
    tokenizer = load_tokenizer(folder)  # first: what is wrong with it is told before gigabytes are read
    return LM(config, hf.load_params(folder, config, faults), tokenizer, folder)


def load_tokenizer(folder: pathlib.Path) -> Any:
    """The folder's own fast tokenizer, tried once; no code from the folder is run.

    Raises InputError for whatever is wrong with its files.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        raise InputError(
            f"{folder} has no tokenizer.json; save the fast tokenizer there (transformers: save_pretrained)."
        )
    tokenizer_bounds.check(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _try(tokenizer)
        return tokenizer
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # many kinds, all the same to the user; panics of its Rust are no Exceptions
        why = (str(error).strip().splitlines() or [""])[0]
        if "trust_remote_code" in str(error):
            why = "it comes as code of its own, which is never run; save a plain fast tokenizer in its place"
        raise InputError(f"{folder}: the tokenizer cannot be loaded ({type(error).__name__}: {why}).") from error


def _try(tokenizer: Any) -> None:
    """Some of what may be wrong with a tokenizer is only seen once it cuts a text."""
    for specials in (True, False):
        found = tokenizer(list(_TRIAL), add_special_tokens=specials)["input_ids"]
        tokenizer.decode(found[0], skip_special_tokens=specials)
