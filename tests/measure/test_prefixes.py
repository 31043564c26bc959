import jax
import numpy as np
import pytest

from emsedit_jax.data.packing import pack
from emsedit_jax.data.shapes import plan_shape
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.capture import prefix
from emsedit_jax.measure.prefixes import PrefixStore

PROMPTS = [TokenItem((1, *range(start, start + 6)), (5,), 7) for start in (10, 50, 90)]


@pytest.fixture(scope="module")
def batches():
    shape = plan_shape([[prompt] for prompt in PROMPTS], "ans")
    return {name: pack([prompt], 1, "ans", shape) for name, prompt in zip("abc", PROMPTS, strict=True)}


@pytest.fixture(scope="module")
def wanted(lm, sites, batches):
    return {name: np.asarray(prefix(lm.config, sites, lm.params, batch)) for name, batch in batches.items()}


def asked(store, batches, wanted, names):
    """Asks for the prefixes in turn and says which were kept, checking every bit of each."""
    found = ""
    for name in names:
        hits = store.hits
        np.testing.assert_array_equal(np.asarray(store.get(name, batches[name])), wanted[name])
        found += "h" if store.hits > hits else "m"
    return found


def test_the_least_recently_used_goes_first_and_values_stay_the_same(lm, sites, batches, wanted):
    megabytes = 2.5 * wanted["a"].nbytes / 2**20  # room for two
    store = PrefixStore(lm.config, sites, lm.params, megabytes)
    # b is older than a when c comes, so b goes; then c goes for b, a for c, b for a
    assert asked(store, batches, wanted, "abacabca") == "mmhmhmmm"
    assert (store.hits, store.misses) == (2, 6)


def test_what_fits_exactly_is_kept(lm, sites, batches, wanted):
    store = PrefixStore(lm.config, sites, lm.params, 3 * wanted["a"].nbytes / 2**20)
    assert asked(store, batches, wanted, "abcabc") == "mmmhhh"


def test_what_is_over_is_forgotten_and_makes_room(lm, sites, batches, wanted):
    store = PrefixStore(lm.config, sites, lm.params, 3 * wanted["a"].nbytes / 2**20)
    keys = {("train", 0): "a", ("score", "holdout", 0): "b", ("score", "eval", 0): "c"}

    def hits():
        before = store.hits
        for key, name in keys.items():
            np.testing.assert_array_equal(np.asarray(store.get(key, batches[name])), wanted[name])
        return store.hits - before

    assert (hits(), hits()) == (0, 3)
    store.forget("train", "holdout")
    assert list(store._kept) == [("score", "eval", 0)]
    assert store._held == wanted["c"].nbytes
    assert (hits(), hits()) == (1, 3)


@pytest.mark.parametrize("share", [0, 0.5])
def test_with_no_room_nothing_is_kept(lm, sites, batches, wanted, share):
    store = PrefixStore(lm.config, sites, lm.params, share * wanted["a"].nbytes / 2**20)
    assert asked(store, batches, wanted, "aabb") == "mmmm"


def test_on_an_accelerator_prefixes_are_kept_in_host_memory(lm, sites, batches, wanted, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    store = PrefixStore(lm.config, sites, lm.params, 1)
    assert asked(store, batches, wanted, "aba") == "mmh"
    kinds = {key: isinstance(kept, np.ndarray) for key, kept in store._kept.items()}
    assert kinds == {"a": True, "b": False}  # the last one is not waited for
    assert asked(store, batches, wanted, "cbb") == "mhh"
    assert {key for key, kept in store._kept.items() if isinstance(kept, jax.Array)} == {"c"}
    assert isinstance(store.get("a", batches["a"]), jax.Array)


def test_prompts_differ(wanted):
    assert not np.array_equal(wanted["a"], wanted["b"])
    assert np.abs(wanted["a"]).max() > 0
