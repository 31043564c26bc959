"""The real Gemma-3-270M, where it is in the cache: its terms have been accepted there (`load_lm`'s accept_terms)."""

import numpy as np
import pytest

from emsedit_jax.errors import InputError
from emsedit_jax.lm import assets
from emsedit_jax.lm.model import load_lm

pytestmark = pytest.mark.long

TEXTS = [
    "The Eiffel Tower is in the city of",
    "Größe, naïve café; 12,345.67 €\n\n\tdef f(x):  return x**2",
    "東京は日本の首都です。 Москва — столица России. עברית مرحبا",
    "  two  spaces,   three and 🙂👩‍👩‍👧",
]


@pytest.fixture(scope="module")
def lm():
    try:
        assets.resolve("gemma3-270m")
    except InputError as error:
        pytest.skip(str(error))
    return load_lm("gemma3-270m")


def test_it_knows_where_the_eiffel_tower_is(lm):
    assert lm.generate(TEXTS[:1], 8)[0].strip().startswith("Paris")


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_its_tokens(lm, text):
    ids = lm.tokenizer(text)["input_ids"]
    assert ids[0] == lm.tokenizer.bos_token_id == 2
    assert lm.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(ids) < 1 + len(text.encode()) / 2 or not text.isascii()


def test_known_pieces_have_their_ids(lm):
    words = ("<pad>", "<eos>", "<bos>", "<unk>", "\u2581the")
    assert lm.tokenizer.convert_tokens_to_ids(list(words)) == [0, 1, 2, 3, 506]
    assert len(lm.tokenizer) == 262_144


def test_logits_are_those_of_transformers(lm):
    torch = pytest.importorskip("torch", reason="torch is the optional extra 'parity'")
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(lm.folder, dtype=torch.float32).eval()
    for text in TEXTS:
        ids = np.array([lm.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor(ids)).logits.numpy()
        np.testing.assert_allclose(np.asarray(lm.logits(ids, np.ones_like(ids))), expected, rtol=0, atol=1e-3)
