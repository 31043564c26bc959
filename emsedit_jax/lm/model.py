"""A loaded language model: config, params and tokenizer of one folder."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emsedit_jax.errors import InputError, near
from emsedit_jax.lm import assets, decoder, hf
from emsedit_jax.lm.config import LMConfig, read_config
from emsedit_jax.lm.params import Params

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class LM:
    """A language model and its tokenizer; `params` are never changed, an edit is a separate tree of deltas."""

    config: LMConfig
    params: Params
    tokenizer: Any
    folder: pathlib.Path

    def logits(self, token_ids: Int[Any, "b t"], attention_mask: Int[Any, "b t"]) -> Float[Array, "b t V"]:
        """Logits at every position, float32; positions count from column 0, columns with mask 0 are not seen."""
        return _all_logits(self.config, self.params, jnp.asarray(token_ids), jnp.asarray(attention_mask))


@functools.partial(jax.jit, static_argnums=0)
def _all_logits(config: LMConfig, params: Params, tokens_bt: Array, mask_bt: Array) -> Array:
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    x_btd = decoder.prefix(config, params, config.num_layers, tokens_bt, positions_bt, mask_bt)
    return decoder.logits(config, params, x_btd)


def load_lm(
    name_or_path: str | pathlib.Path, dtype: str = "auto", *, progress: Callable[[str], None] | None = None
) -> LM:
    """Loads a model by asset name (`smollm2-135m`) or from a Hugging Face folder; `auto` keeps the files' dtype.

    `progress` is told, in words, of a download or conversion.

    Raises InputError for whatever is wrong with the name, the folder or its files.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r} (known: {', '.join(DTYPES)}).{near(dtype, DTYPES)}")
    folder = assets.resolve(str(name_or_path), progress=progress)
    config = dataclasses.replace(read_config(folder), dtype=hf.stored_dtype(folder) if dtype == "auto" else dtype)
    return LM(config, hf.load_params(folder, config), load_tokenizer(folder), folder)


def load_tokenizer(folder: pathlib.Path) -> Any:
    """The folder's own fast tokenizer; no code from the folder is run."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        raise InputError(
            f"{folder} has no tokenizer.json; save the fast tokenizer there (transformers: save_pretrained)."
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds; all mean the same to the user
        raise InputError(f"{folder}: the tokenizer cannot be loaded ({type(error).__name__}: {error}).") from error


def host(x: Array) -> np.ndarray:
    """The array in host memory."""
    return np.asarray(jax.device_get(x))
