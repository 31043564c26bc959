import json

import ml_dtypes
import numpy as np
import pytest

from emsedit_jax.lm.model import load_lm, load_tokenizer
from emsedit_jax.sharding import host
from tests.lm.tiny_folder import tensors, write, write_tokenizer
from tests.refusals import refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("tiny"), tensors(ml_dtypes.bfloat16), eos_token_id=3)
    write_tokenizer(folder)
    return folder


def logits(lm, tokens, mask=None):
    tokens = np.array([tokens], np.int32)
    return np.asarray(lm.logits(tokens, np.ones_like(tokens) if mask is None else np.array([mask], np.int32)))[0]


def test_a_folder_becomes_config_params_and_tokenizer(folder):
    lm = load_lm(folder)
    assert (lm.folder, lm.config.eos_ids, lm.config.num_layers) == (folder, (3,), 1)
    assert lm.tokenizer("w4 w7")["input_ids"] == [4, 7]


@pytest.mark.parametrize(
    ("asked", "kept"), [("auto", "bfloat16"), ("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")]
)
def test_dtype(folder, asked, kept):
    lm = load_lm(str(folder), asked)
    assert lm.config.dtype == kept
    assert lm.params["layers"][0]["mlp"]["gate"]["w"].dtype.name == kept


def test_bf16_files_computed_in_float32_differ_from_bf16_by_rounding_alone(folder):
    rough, exact = (logits(load_lm(folder, dtype), [1, 2, 3]) for dtype in ("auto", "float32"))
    assert rough.dtype == exact.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.02 * np.abs(exact).max()


def test_masked_columns_are_not_seen(folder):
    lm = load_lm(folder, "float32")
    whole = logits(lm, [1, 2, 3, 4, 5])
    padded = logits(lm, [1, 2, 3, 9, 9], [1, 1, 1, 0, 0])
    np.testing.assert_allclose(padded[:3], whole[:3], atol=1e-5)
    gap = logits(lm, [1, 7, 3, 4, 5], [1, 0, 1, 1, 1])
    other = logits(lm, [1, 8, 3, 4, 5], [1, 0, 1, 1, 1])
    np.testing.assert_allclose(gap[2:], other[2:], atol=1e-6)


def test_an_unknown_dtype(folder):
    with refused("'bfloat'", "Did you mean 'bfloat16'", "auto"):
        load_lm(folder, "bfloat")


def test_a_folder_without_a_tokenizer(tmp_path):
    with refused(str(tmp_path), "tokenizer.json"):
        load_lm(write(tmp_path, tensors()))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "tokenizer.json cannot be read as JSON"),
        ("{", "tokenizer.json cannot be read as JSON"),
        ('{"model": {"type": "Unheard"}}', "tokenizer cannot be loaded"),
    ],
)
def test_a_broken_tokenizer_is_named(tmp_path, content, says):
    (tmp_path / "tokenizer.json").write_text(content)
    with refused(str(tmp_path), says):
        load_tokenizer(tmp_path)


def test_host_arrays_are_numpy_s(folder):
    weight = host(load_lm(folder, "float32").params["norm"]["w"])
    assert type(weight) is np.ndarray
    np.testing.assert_array_equal(weight, tensors(ml_dtypes.bfloat16)["model.norm.weight"].astype(np.float32))


def test_the_package_s_own_door(folder):
    import emsedit_jax

    lm = emsedit_jax.load_lm(str(folder), dtype="float32")
    assert isinstance(lm, emsedit_jax.LM)
    assert {"LM", "load_lm"} <= set(dir(emsedit_jax))
    with pytest.raises(AttributeError, match="has no attribute 'load_ml'"):
        emsedit_jax.load_ml  # noqa: B018


def test_text_goes_on_as_text(folder):
    lm = load_lm(folder, "float32")
    texts = ["w4 w7", "w1", "w2 w2 w5"]
    greedy = lm.generate(texts, 5)
    assert greedy == lm.generate(texts, max_new_tokens=5, temperature=0.7, top_k=1)
    assert greedy[1:2] == lm.generate(["w1"], 5)
    hot = lm.generate(texts, 5, temperature=50.0, seed=1)
    assert hot == lm.generate(texts, 5, temperature=50.0, seed=1)
    assert hot != lm.generate(texts, 5, temperature=50.0, seed=2)
    assert all(set(text.split()) <= {f"w{number}" for number in range(10)} for text in greedy + hot)
    with refused("list of texts"):
        lm.generate("w4 w7")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1"),
        ({"seed": 2**31}, "seed=2147483648"),
        ({"seed": -1}, "seed=-1"),
        ({"top_k": -1}, "top_k=-1"),
    ],
)
def test_what_cannot_be_generated_is_refused(folder, asked, says):
    with refused(says):
        load_lm(folder).generate(["w1"], **asked)


@pytest.mark.parametrize(
    ("ids", "mask", "says"),
    [
        ([[1, 99]], [[1, 1]], "from 0 to 9"),
        ([[1, -1]], [[1, 1]], "from 0 to 9"),
        ([[1, 2]], [[1, 2]], "a 0 or 1"),
    ],
)
def test_ids_and_masks_that_mean_nothing_are_refused(folder, ids, mask, says):
    with refused(says):
        load_lm(folder).logits(np.array(ids), np.array(mask))


def test_a_tokenizer_that_is_code_is_not_run(tmp_path):
    folder = write(tmp_path, tensors())
    write_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["tok.Tok", None]}}))
    (folder / "tok.py").write_text("raise SystemExit('run')")
    with refused(str(folder), "code of its own, which is never run"):
        load_lm(folder)
