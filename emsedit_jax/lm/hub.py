"""Models by their names on the Hugging Face hub: only the files that are needed, fetched once, then used offline."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Collection
from pathlib import Path

from emsedit_jax.errors import InputError
from emsedit_jax.lm import hf

NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")  # org/name, org/name@revision
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# (some repositories hold the same weights once more under other names or in folders)
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
OTHERS = re.compile(
    r"(generation_config|special_tokens_map|added_tokens|tokenizer\w*|chat_template|vocab)\.[a-z]+|"
    r"merges\.txt|additional_chat_templates/[\w.-]+|LICEN[SC]E[\w.-]*|README\.md"
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
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        hf.weight_files(folder)
    except (OSError, ValueError, InputError):
        return None
    return folder if (folder / CONFIG).exists() and (folder / TOKENIZER).exists() else None


def wanted(files: Collection[str]) -> list[str]:
    """Those of a repository's files that are needed.

    Raises InputError, without the repository's name, where it cannot be loaded from them.
    """
    weights = [SINGLE] if SINGLE in files else [file for file in files if SHARD.fullmatch(file) or file == INDEX]
    if SINGLE not in weights and INDEX not in weights:
        pickles = sorted(file for file in files if file.endswith((".bin", ".pt", ".pth")))
        kind = f"only pickled weights ({pickles[0]}), which can run code when loaded" if pickles else "no weights"
        raise InputError(f"{kind}; look for a revision (org/name@refs/pr/1) or a repository with {SINGLE} or {INDEX}")
    for needed, what in ((CONFIG, "the model's config"), (TOKENIZER, "the fast tokenizer")):
        if needed not in files:
            raise InputError(f"no {needed}, {what}")
    return sorted({CONFIG, TOKENIZER, *weights, *(file for file in files if OTHERS.fullmatch(file))})


def _download(name: str, revision: str | None, say: Callable[[str], None]) -> Path:
    from huggingface_hub import HfApi, errors, snapshot_download

    page = f"https://huggingface.co/{name}"
    folder = "or give a local folder with --config.model.name_or_path=FOLDER"
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        try:
            files = wanted(sizes)
        except InputError as error:
            raise InputError(f"{name} has {error}, {folder}.") from None
        total = sum(sizes[file] for file in files if file.endswith(".safetensors"))
        say(f"{name}: fetching {total / 1e9:.1f} GB from the hub, once")
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
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
