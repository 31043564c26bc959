import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from emsedit_jax.errors import InputError
from emsedit_jax.lm.identity import Identity
from emsedit_jax.meta import trajectory
from emsedit_jax.run import arrays, networks
from tests import tiny_lm
from tests.refusals import refused

MODEL = Identity("a model", "0123")
EDITOR = tiny_lm.editor("emsedit")


def state_of(editor, seed=0):
    """Networks and statistics as training leaves them, no number 0 or 1 any more."""
    state = trajectory.init(editor, seed)
    counted = jax.tree.map(lambda leaf: leaf + 7 if leaf.dtype == np.int32 else leaf, tiny_lm.worn(state, seed))
    return counted


@pytest.fixture(scope="module")
def trained():
    return state_of(EDITOR)


@pytest.fixture
def path(tmp_path, trained):
    path = tmp_path / "hypernet.safetensors"
    networks.save(path, EDITOR, trained, MODEL)
    return path


def about(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[arrays.KEY])


def assert_same(one, other):
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["emsedit", "rledit", "malmen", "mend"])
def test_loaded_networks_are_the_saved_ones(tmp_path, name):
    editor, path = tiny_lm.editor(name), tmp_path / "hypernet.safetensors"
    saved = state_of(editor)
    networks.save(path, editor, saved, MODEL)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    fresh = trajectory.init(editor, seed=1)
    loaded = networks.load(path, editor, fresh, MODEL)
    assert_same((loaded.thetas, loaded.stats), (saved.thetas, saved.stats))
    assert (loaded.opt_state, loaded.grads) == (fresh.opt_state, fresh.grads)


def test_the_file_says_what_the_networks_are_for(path, trained):
    found = about(path)
    assert (found["editor"], found["model"], found["networks"]) == ("emsedit", MODEL.name, 2)
    assert (found["rank"], found["n_blocks"]) == ([4, 2], 1)
    assert found["sites"] == [name for group in tiny_lm.SITES for name in group.names]
    arrays = load_file(path)
    assert {name.split("/")[1] for name in arrays} == {group.shape_key for group in tiny_lm.SITES}
    group = tiny_lm.SITES[0].shape_key
    np.testing.assert_array_equal(arrays[f"net1/{group}/lr"], trained.thetas[1][0]["lr"])
    np.testing.assert_array_equal(arrays[f"net0/{group}/norm.mean_c"], trained.stats[0][0].mean_c)


def other_sites():
    group = EDITOR.sites[0]
    swapped = group._replace(layers=group.layers[::-1], names=group.names[::-1], modules=group.modules[::-1])
    return EDITOR._replace(sites=(swapped, *EDITOR.sites[1:]))


OTHERS = {
    "editor": (tiny_lm.editor("rledit"), MODEL, ["editor=emsedit", "editor=rledit"]),
    "model": (EDITOR, Identity("a model", "4567"), ["on a model (weights 0123), ", "has a model (weights 4567)"]),
    "many sites": (
        EDITOR._replace(sites=(EDITOR.sites[0], EDITOR.sites[1]._replace(names=("x", "y", "z")))),
        MODEL,
        ["sites=[3 of them, number 3 'model.layers.2.mlp.down_proj'], ", "has sites=[5 of them, number 3 'x']"],
    ),
    "sites": (EDITOR._replace(sites=EDITOR.sites[:1]), MODEL, ["sites=[", "down_proj", "this run has sites="]),
    "order": (other_sites(), MODEL, ["sites=['model.layers.1", "this run has sites=['model.layers.2"]),
    "steps": (tiny_lm.editor("emsedit", iters=3), MODEL, ["networks=2", "networks=3"]),
    "mode": (tiny_lm.editor("emsedit", num_seq=1), MODEL, ["networks=2", "networks=1"]),
    "rank": (
        EDITOR._replace(specs=tuple(spec._replace(rank=2 * spec.rank) for spec in EDITOR.specs)),
        MODEL,
        ["rank=[4, 2]", "rank=[8, 4]"],
    ),
    "blocks": (
        EDITOR._replace(specs=tuple(spec._replace(n_blocks=2) for spec in EDITOR.specs)),
        MODEL,
        ["n_blocks=1", "n_blocks=2"],
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_networks_of_another_run_are_refused_with_both_sides_named(path, other):
    editor, model, named = OTHERS[other]
    with refused("hypernet.safetensors was trained ", *named):
        networks.load(path, editor, trajectory.init(editor, 0), model)


def test_a_network_that_all_steps_share_serves_any_number_of_them(tmp_path):
    one, more = tiny_lm.editor("malmen", iters=1), tiny_lm.editor("malmen", iters=3)
    saved = state_of(one)
    networks.save(tmp_path / "hypernet.safetensors", one, saved, MODEL)
    loaded = networks.load(tmp_path / "hypernet.safetensors", more, trajectory.init(more, 0), MODEL)
    assert_same(loaded.thetas, saved.thetas)


# ---------------------------------------------------------------------------------------------- damage


def test_no_damaged_byte_changes_the_networks_unnoticed(path, trained):
    whole = path.read_bytes()
    fresh = trajectory.init(EDITOR, 1)
    noticed = places = 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(0, header, 3), *range(header, len(whole), 29)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x05
        path.write_bytes(damaged)
        places += 1
        try:
            loaded = networks.load(path, EDITOR, fresh, MODEL)
        except InputError:
            noticed += 1
        else:  # a space between fields
            assert_same((loaded.thetas, loaded.stats), (trained.thetas, trained.stats))
    assert noticed > 0.95 * places


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_cut_off_file_is_damaged(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with refused("hypernet.safetensors is damaged", "train again"):
        networks.load(path, EDITOR, trajectory.init(EDITOR, 0), MODEL)


def changed(path, change, rename=str):
    """The file with an array changed, and its digest made to fit."""
    with safe_open(path, framework="numpy") as file:
        found = {rename(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    said = {name: value for name, value in about(path).items() if name != arrays.SEAL}
    arrays.write(path, {name: change(name, value) for name, value in found.items()}, "networks", said)


def test_a_change_with_a_fitting_digest_is_no_damage(path):
    changed(path, lambda name, value: value + 1 if name.endswith("/lr") else value)
    loaded = networks.load(path, EDITOR, trajectory.init(EDITOR, 0), MODEL)
    assert min(float(theta[0]["lr"].min()) for theta in loaded.thetas) > 0.8


def test_arrays_of_other_names_shapes_and_types_are_refused(path):
    whole, fresh, lr = path.read_bytes(), trajectory.init(EDITOR, 0), f"net0/{EDITOR.sites[0].shape_key}/lr"
    changed(path, lambda name, value: value.T.copy() if name == lr else value)
    with refused(f"{lr} is float32[1, 2], this run has float32[2, 1]"):
        networks.load(path, EDITOR, fresh, MODEL)
    path.write_bytes(whole)
    changed(path, lambda name, value: value.astype(np.float64) if name == lr else value)
    with refused(f"{lr} is float64[2, 1], this run has float32[2, 1]"):
        networks.load(path, EDITOR, fresh, MODEL)
    path.write_bytes(whole)
    changed(path, lambda name, value: value, rename=lambda name: name.replace("net1", "net2"))
    with refused("array 'net1/", "is only in this run"):
        networks.load(path, EDITOR, fresh, MODEL)


def test_a_file_of_something_else_is_refused(path):
    fresh = trajectory.init(EDITOR, 0)
    save_file({"x": np.zeros(3, np.float32)}, path)
    with refused("does not hold networks of this program"):
        networks.load(path, EDITOR, fresh, MODEL)
    save_file({"x": np.zeros(3, np.float32)}, path, metadata={arrays.KEY: json.dumps(["format"])})
    with refused("is damaged, or no file of networks"):
        networks.load(path, EDITOR, fresh, MODEL)
    save_file({"x": np.zeros(3, np.float32)}, path, metadata={arrays.KEY: '{"a":' + "[" * 100_000})
    with refused("is damaged, or no file of networks"):
        networks.load(path, EDITOR, fresh, MODEL)
    path.write_text("dear reader, this is a letter")
    with refused("is damaged, or no file of networks"):
        networks.load(path, EDITOR, fresh, MODEL)


def test_a_run_is_named_by_its_folder_or_by_the_file(path, tmp_path):
    assert networks.file_of(str(path)) == networks.file_of(str(tmp_path)) == path
    path.unlink()
    for given in (str(path), str(tmp_path)):
        with refused(f"{path} is missing: --config.editor.load={given} must name"):
            networks.file_of(given)


def test_a_folder_that_cannot_be_written_is_told(tmp_path, trained):
    with refused("cannot write"):
        networks.save(tmp_path / "nowhere" / "hypernet.safetensors", EDITOR, trained, MODEL)
