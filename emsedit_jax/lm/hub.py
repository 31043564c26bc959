"""Models by their names on the Hugging Face hub: only the files that are needed, fetched once, then used offline."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

from emsedit_jax.errors import InputError
from emsedit_jax.lm import hf

NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")  # org/name, org/name@revision
WEIGHTS = "model*.safetensors"  # (some repositories hold the same weights once more under other names)
FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "model.safetensors.index.json",
    WEIGHTS,
)


def is_name(text: str) -> bool:
    """Whether this could be a name on the hub."""
    return NAME.fullmatch(text) is not None


def fetch(text: str, progress: Callable[[str], None] | None = None) -> Path:
    """The folder of a model `org/name` or `org/name@revision`, from the hub's own cache or, once, from the hub.

    Raises InputError where it cannot be had, with what to do.
    """
    match = NAME.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no name on the hub: these look like org/name or org/name@revision.")
    name, revision = match.groups()
    return _kept(name, revision) or _download(name, revision, progress or (lambda line: None))


def _kept(name: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache, if it is there as a whole; the network is not asked."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_files_only=True))
        hf.weight_files(folder)
    except (OSError, ValueError, InputError):
        return None
    return folder if (folder / "config.json").exists() and (folder / "tokenizer.json").exists() else None


def _download(name: str, revision: str | None, say: Callable[[str], None]) -> Path:
    from huggingface_hub import HfApi, errors, snapshot_download

    page = f"https://huggingface.co/{name}"
    folder = "or give a local folder with --config.model.name_or_path=FOLDER"
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        weights = [file for file in sizes if re.fullmatch(r"model[^/]*\.safetensors", file)]
        if not weights:
            held = sorted(file for file in sizes if file.endswith((".bin", ".pt", ".pth")))
            kind = f"only pickled weights ({held[0]}), which can run code when loaded" if held else "no weights"
            raise InputError(f"{name} has {kind}; look for a repository with *.safetensors, {folder}.")
        say(f"{name}: fetching {sum(sizes[file] for file in weights) / 1e9:.1f} GB from the hub, once")
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name} asks for its terms to be accepted: do so on {page}, log in with `hf auth login` (or set HF_TOKEN),"
            f" {folder}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name} has no revision {revision!r}; see {page}/commits.") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"neither a folder nor a model on the hub is called {name!r}; check its spelling, log in with"
            f" `hf auth login` if it is private, {folder}."
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"{name!r} is no name on the hub ({error}); {folder}.") from error
    except (OSError, errors.HTTPError) as error:  # the disk's, the network's and the hub's other ones
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"no space left for {name}; make room, or set HF_HOME to a folder elsewhere.") from error
        raise InputError(f"{name} cannot be fetched ({_first_line(error)}): check the network, {folder}.") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 160 else f"{lines[0][:157]}..."
