import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.run import arrays, edits
from emsedit_jax.run.ledger_lines import NO_LEDGER
from emsedit_jax.types import SiteGroup

SITES = (
    SiteGroup(3, 2, (4, 1), ("mlp.up", "mlp.up"), ("layers.4.up", "layers.1.up")),
    SiteGroup(2, 3, (1,), ("mlp.down",), ("layers.1.down",)),
)
BASE = Identity("a model", "0123")
DELTAS = (jnp.arange(12, dtype=jnp.float32).reshape(2, 3, 2), -jnp.ones((1, 2, 3), jnp.float32))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "edits.safetensors"
    edits.save(path, SITES, DELTAS, BASE, NO_LEDGER)
    return path


def test_each_site_is_an_array_of_its_own_name(path):
    found = load_file(path)
    assert sorted(found) == ["layers.1.down", "layers.1.up", "layers.4.up"]
    np.testing.assert_array_equal(found["layers.4.up"], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(found["layers.1.up"], [[6, 7], [8, 9], [10, 11]])
    np.testing.assert_array_equal(found["layers.1.down"], [[-1, -1, -1], [-1, -1, -1]])
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_digests_are_of_the_bytes_and_in_the_file_too(tmp_path):
    path = tmp_path / "edits.safetensors"
    found = edits.save(path, SITES, DELTAS, BASE, NO_LEDGER)
    assert found["layers.1.up"] == hashlib.sha256(np.arange(6, 12, dtype="<f4").tobytes()).hexdigest()
    size = int.from_bytes(path.read_bytes()[:8], "little")
    about = json.loads(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"][arrays.KEY])
    assert about["sha256"] == found
    assert (about["model"], about["weights"]) == BASE


def test_loaded_edits_are_the_saved_ones(path):
    loaded = edits.load(path, SITES, BASE)
    for ours, theirs in zip(loaded, DELTAS, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert arrays.digests(edits.named(SITES, loaded)) == arrays.digests(edits.named(SITES, DELTAS))


def test_saving_again_takes_the_place_of_the_file(path):
    edits.save(path, SITES, (2 * DELTAS[0], DELTAS[1]), BASE, NO_LEDGER)
    np.testing.assert_array_equal(edits.load(path, SITES, BASE)[0], 2 * DELTAS[0])


def test_the_order_of_sites_is_the_callers(path):
    swapped = (SITES[0]._replace(layers=(1, 4), names=SITES[0].names[::-1]), SITES[1])
    np.testing.assert_array_equal(edits.load(path, swapped, BASE)[0], DELTAS[0][::-1])


@pytest.mark.parametrize("other", [0x01, 0x20, 0x05])
def test_no_damaged_byte_changes_the_edits_unnoticed(path, other):
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= other
        path.write_bytes(damaged)
        try:
            loaded = edits.load(path, SITES, BASE)
        except InputError:
            noticed += 1
        else:  # a letter of the model's name, a space between fields
            for ours, theirs in zip(loaded, DELTAS, strict=True):
                assert ours.dtype == theirs.dtype
                np.testing.assert_array_equal(ours, theirs)
    assert noticed > 0.9 * len(whole)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_cut_off_file_is_damaged(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"edits\.safetensors is damaged, or no file of edits \(.*run the edits again"):
        edits.load(path, SITES, BASE)


def test_a_changed_number_is_named_by_its_site(path):
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 0x80
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"the bytes of layers\.\d\.\w+ changed since they were saved"):
        edits.load(path, SITES, BASE)


def test_edits_of_another_model_are_refused_whatever_its_name(path):
    with pytest.raises(
        InputError, match=r"edits of a model \(weights 0123\), this run has a model \(weights 4567\); give"
    ):
        edits.load(path, SITES, BASE._replace(weights="4567"))
    edits.load(path, SITES, BASE._replace(name="the same model in another folder"))
    arrays.write(path, edits.named(SITES, DELTAS), "edits", {})
    with pytest.raises(InputError, match=r"edits of no model \(weights unknown\), this run has"):
        edits.load(path, SITES, BASE)


def test_edits_of_other_sites_are_refused(path):
    with pytest.raises(InputError, match=r"other layers \(for instance layers\.1\.down\)"):
        edits.load(path, SITES[:1], BASE)
    more = (SITES[0], SITES[1]._replace(layers=(1, 2), modules=("m", "m"), names=("layers.1.down", "layers.2.down")))
    with pytest.raises(InputError, match=r"for instance layers\.2\.down"):
        edits.load(path, more, BASE)
    wider = (SITES[0], SITES[1]._replace(k=6, v=1))
    with pytest.raises(InputError, match=r"for instance layers\.1\.down"):
        edits.load(path, wider, BASE)


def test_numbers_of_another_type_are_refused(path):
    found = {name: value.view(np.int32) for name, value in edits.named(SITES, DELTAS).items()}
    arrays.write(path, found, "edits", BASE.about())
    with pytest.raises(InputError, match=r"edits\.safetensors holds int32 numbers at layers"):
        edits.load(path, SITES, BASE)


def test_files_of_another_program_are_refused(path):
    save_file(edits.named(SITES, DELTAS), path)
    with pytest.raises(InputError, match="does not hold edits of this program"):
        edits.load(path, SITES, BASE)


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"edits\.safetensors is missing: .* run --mode=train first"):
        edits.load(tmp_path / "edits.safetensors", SITES, BASE)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        edits.save(tmp_path / "nowhere" / "edits.safetensors", SITES, DELTAS, BASE, NO_LEDGER)
