"""Names on the hub: looked up in the local cache, fetched once with only what is needed, every fault in one line."""

import errno
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from emsedit_jax.lm import assets, hub
from tests.lm.tiny_folder import tensors, write, write_tokenizer
from tests.refusals import refused

NAME = "maker/tiny-llama"


class Hub:
    """Stands in for the hub: a repository's folder, and what was asked of it."""

    def __init__(self, folder, files=None):
        self.folder, self.fault, self.asked = folder, None, []
        self.files = files or ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "run.py"]
        self.cached = False

    def model_info(self, name, revision=None, files_metadata=False):
        self.asked.append(("info", name, revision))
        if self.fault:
            raise self.fault
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file, size=10**9) for file in self.files])

    def snapshot_download(self, name, *, revision=None, allow_patterns=(), local_files_only=False):
        self.asked.append(("local" if local_files_only else "fetch", name, revision))
        self.patterns = allow_patterns
        if local_files_only and not self.cached:
            raise errors.LocalEntryNotFoundError("not in the cache")
        self.cached = True
        return str(self.folder)


@pytest.fixture
def made(tmp_path, monkeypatch):
    folder = write(tmp_path / "snapshot", tensors())
    write_tokenizer(folder)
    found = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    return found


def response(status):
    return SimpleNamespace(status_code=status, headers={}, request=None, url="", text="")


def test_a_name_is_fetched_once_and_then_found_without_the_network(made):
    lines = []
    assert assets.resolve(NAME, progress=lines.append) == made.folder
    assert lines == [f"{NAME}: fetching 1.0 GB from the hub, once"]
    assert [kind for kind, *_ in made.asked] == ["local", "info", "fetch"]
    made.asked.clear()
    assert assets.resolve(NAME, progress=lines.append) == made.folder
    assert (len(lines), made.asked) == (1, [("local", NAME, None)])


def test_a_revision_is_asked_for(made):
    assets.resolve(f"{NAME}@v1.2")
    assert {revision for *_, revision in made.asked} == {"v1.2"}


WANTED = [
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.json", "merges.txt", "LICENSE"),
    *("special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
]
UNWANTED = [
    *("pytorch_model.bin", "run.py", "original/consolidated.00.pth", "consolidated.safetensors", "tf_model.h5"),
    *("model.fp16.safetensors", "tokenizer/special.json", "model_x/model.safetensors", "modeling_llama.py"),
]


def test_only_what_is_needed_is_fetched(made):
    made.files = WANTED + UNWANTED
    assets.resolve(NAME)
    assert sorted(made.patterns) == sorted(WANTED)


def test_a_single_file_is_fetched_rather_than_shards(made):
    made.files = [*WANTED, "model.safetensors"]
    assets.resolve(NAME)
    assert [file for file in made.patterns if "safetensors" in file] == ["model.safetensors"]


def test_a_snapshot_that_was_broken_off_is_fetched_again(made):
    made.cached = True
    (made.folder / "model.safetensors").rename(made.folder / "elsewhere")
    (made.folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assets.resolve(NAME)
    assert [kind for kind, *_ in made.asked] == ["local", "info", "fetch"]


def test_a_folder_of_the_same_name_comes_first(made, tmp_path, monkeypatch):
    shutil.copytree(made.folder, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert assets.resolve(NAME).resolve() == (tmp_path / NAME).resolve()
    assert made.asked == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["config.json", "pytorch_model.bin"], ("only pickled weights (pytorch_model.bin)", "model.safetensors")),
        (["config.json"], ("no weights",)),
        (["config.json", "tokenizer.json", "consolidated.safetensors"], ("no weights",)),
        (["config.json", "tokenizer.json", "model.fp16.safetensors"], ("no weights",)),
        (["config.json", "tokenizer.json", "model-00001-of-00002.safetensors"], ("no weights",)),
        (["config.json", "model.safetensors"], ("no tokenizer.json, the fast tokenizer",)),
        (["tokenizer.json", "model.safetensors"], ("no config.json",)),
    ],
)
def test_nothing_is_fetched_where_there_is_nothing_to_load(made, files, said):
    made.files = files
    with refused(NAME, *said, "local folder"):
        assets.resolve(NAME)
    assert [kind for kind, *_ in made.asked] == ["local", "info"]


def http(kind, status):
    error = kind.__new__(kind)
    Exception.__init__(error, "401 Client Error\nmore lines")
    error.response, error.server_message = response(status), None
    return error


FAULTS = {
    "gated": (http(errors.GatedRepoError, 403), ("terms", f"huggingface.co/{NAME}", "hf auth login", "HF_TOKEN")),
    "no such name": (http(errors.RepositoryNotFoundError, 404), ("neither a folder nor a model on the hub", NAME)),
    "no such revision": (http(errors.RevisionNotFoundError, 404), ("no revision 'v9'",)),
    "offline": (
        errors.OfflineModeIsEnabled("offline mode is on"),
        ("cannot be fetched (offline mode is on)", "network"),
    ),
    "no network": (OSError("Name or service not known"), ("cannot be fetched (Name or service", "network")),
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), ("no space left", "HF_HOME")),
    "a long story": (errors.HTTPError("x" * 5000), ("cannot be fetched (xxx", "...)")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_in_one_line_with_the_remedy(made, fault):
    made.fault, said = FAULTS[fault]
    with refused(*said):
        assets.resolve(f"{NAME}@v9" if fault == "no such revision" else NAME)


@pytest.mark.parametrize("text", ["a/b/c", "a b/c", "/a/b", "a/", "smollm2-135m"])
def test_what_is_no_name(text):
    assert not hub.is_name(text)
    with refused("no name on the hub"):
        hub.fetch(text)
