"""A finished run's edited model as a folder, from the command line."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.lm.identity import identify
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import arrays, cluster, edits, restore, workdir
from tests.run import tiny
from tests.run.test_bad_input import refused


def test_the_folder_is_the_edited_model(finished, tmp_path, capsys):
    target = tmp_path / "edited"
    assert tiny.call("--mode=export", f"--workdir={finished}", f"--to={target}") == 0
    assert f"from_pretrained('{target}')" in capsys.readouterr().out
    before, after = load_lm(str(tiny.MODEL)), load_lm(str(target))
    sites = edit_sites.resolve(before.config, tiny.read(finished / "config.json")["model"]["edit_modules"])
    deltas = edits.load(finished / "edits.safetensors", sites, identify("", before.params))
    for group, delta_skv in zip(sites, deltas, strict=True):
        for layer, module, delta_kv in zip(group.layers, group.modules, delta_skv, strict=True):
            part, name = module.split(".")
            weights = [np.asarray(lm.params["layers"][layer][part][name]["w"]) for lm in (before, after)]
            np.testing.assert_allclose(weights[1], weights[0] + np.asarray(delta_kv), atol=1e-6)
    prompt = ["On which continent is Peru?"]
    assert after.generate(prompt, 6) == before.generate(prompt, 6, sites=sites, deltas=deltas)


MESH = ("--config.mesh.data=2", "--config.mesh.model=4")


@pytest.mark.parametrize("form", ["model", "deltas", "lora"])
def test_an_export_over_devices_is_that_of_one(finished, tmp_path, capsys, form):
    export = ("--mode=export", f"--workdir={finished}", f"--as={form}")
    assert tiny.call(*export, f"--to={tmp_path / 'alone'}") == 0
    assert "mesh" not in capsys.readouterr().out
    assert tiny.call(*export, f"--to={tmp_path / 'there'}", *MESH) == 0
    said = capsys.readouterr().out
    assert "mesh     2 x 4 devices (data x model)\n" in said
    assert "key/value heads are no multiple of the devices along model" in said
    assert_alike(tmp_path / "alone", tmp_path / "there")


def assert_alike(one, other):
    """That two exports hold the same, to the last bit; what files say of themselves is in an order that varies."""
    ones, others = tiny.files(one), tiny.files(other)
    assert ones.keys() == others.keys()
    tensors = [name for name in ones if name.endswith(".safetensors")]
    assert tensors
    for name in ones.keys() - {*tensors, "SHA256SUMS"}:
        assert others[name] == ones[name], name
    for name in tensors:
        expected, found = load_file(one / name), load_file(other / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].tobytes() == value.tobytes(), key


def test_what_is_exported_over_devices_is_on_none_of_them_whole(finished):
    with cluster.mesh_of(2, 4):
        found = restore.restore(workdir.saved_config(finished), workdir.Workdir(finished))
    (group,), (delta_skv,) = found.sites, found.deltas
    assert delta_skv.addressable_shards[0].data.shape == (2, group.k, group.v // 4)
    gate = found.lm.params["layers"][0]["mlp"]["gate"]["w"]
    assert gate.addressable_shards[0].data.shape == (group.k, group.v // 4)


def test_what_an_export_needs(finished, tmp_path, capsys):
    refused(capsys, "--mode=export needs --to=FOLDER", "--mode=export", f"--workdir={finished}")
    refused(capsys, "--mode=export needs --workdir=FOLDER", "--mode=export", f"--to={tmp_path / 'edited'}")
    refused(capsys, "it needs --mode=export", *tiny.flags(f"--to={tmp_path / 'edited'}"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    refused(capsys, "is there already", "--mode=export", f"--workdir={finished}", f"--to={tmp_path / 'full'}")
    (tmp_path / "empty").mkdir()
    refused(capsys, "holds no run", "--mode=export", f"--workdir={tmp_path / 'empty'}", f"--to={tmp_path / 'edited'}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "full"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run of more rows than a key is wide in all, and one of fewer."""
    folder = tmp_path_factory.mktemp("exported")
    tiny.train(folder / "few", "--config.dataset.n_edits=1", editor="ultraedit")
    tiny.train(folder / "many", "--config.num_seq=8", editor="ultraedit")
    return folder


def test_the_changes_alone_are_named_as_the_weights_are(finished, tmp_path, capsys):
    target = tmp_path / "changes"
    assert tiny.call("--mode=export", f"--workdir={finished}", f"--to={target}", "--as=deltas") == 0
    assert "to be added to the model's weights" in capsys.readouterr().out
    assert sorted(path.name for path in target.iterdir()) == ["SHA256SUMS", "deltas.safetensors"]
    with safe_open(target / "deltas.safetensors", framework="numpy") as file:
        changes = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(file.metadata()["emsedit_jax"])
    saved = arrays.read(finished / "edits.safetensors", "edits", "")[1]
    assert set(changes) == {f"{name}.weight" for name in saved}
    for name, delta_kv in saved.items():
        np.testing.assert_array_equal(changes[f"{name}.weight"], delta_kv.T)
    assert about["weights"] == identify("", load_lm(str(tiny.MODEL)).params).weights


@pytest.mark.parametrize(("which", "few"), [("few", True), ("many", False)])
def test_an_adapter_multiplies_to_the_edits(many, tmp_path, capsys, which, few):
    target = tmp_path / "adapter"
    assert tiny.call("--mode=export", f"--workdir={many / which}", f"--to={target}", "--as=lora") == 0
    told = capsys.readouterr().out
    about, tensors = tiny.read(target / "adapter_config.json"), load_file(target / "adapter_model.safetensors")
    saved = arrays.read(many / which / "edits.safetensors", "edits", "")[1]
    assert about["target_modules"] == sorted(saved)
    for name, delta_kv in saved.items():
        a_rk, b_vr = (tensors[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
        assert about["rank_pattern"][name] == about["alpha_pattern"][name] == len(a_rk) <= about["r"]
        assert (len(a_rk) < min(delta_kv.shape)) == few
        np.testing.assert_allclose((b_vr @ a_rk).T, delta_kv, atol=1e-5 * np.abs(delta_kv).max())
    most = max(min(delta_kv.shape) for delta_kv in saved.values())
    assert f" to {about['r']}, at most {most}; " in told
    assert ("their factors are larger than themselves; --as=deltas" in told) != few


@pytest.mark.parametrize("form", ["deltas", "lora"])
def test_what_is_written_beside_the_model_is_whole_or_not_there(finished, tmp_path, capsys, monkeypatch, form):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    export = ("--mode=export", f"--workdir={finished}", f"--to={tmp_path / 'out'}", f"--as={form}")
    with monkeypatch.context() as patch:
        patch.setattr("emsedit_jax.disk.save_file", full)
        refused(capsys, "no space left on device; free it, or name another folder", *export)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.partial-0123abcd").mkdir()  # as a killed one leaves it
    (tmp_path / ".out.partial-0123abcd" / "half.safetensors").touch()
    assert tiny.call(*export) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").glob(".*"))


def test_an_adapter_after_an_undo_is_of_what_is_left(many, tmp_path):
    run = shutil.copytree(many / "few", tmp_path / "run")
    assert tiny.call("--mode=undo", f"--workdir={run}", "--batches=1") == 0
    assert tiny.call("--mode=export", f"--workdir={run}", f"--to={tmp_path / 'adapter'}", "--as=lora") == 0
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, delta_kv in arrays.read(run / "edits.safetensors", "edits", "")[1].items():
        a_rk, b_vr = (tensors[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
        np.testing.assert_allclose((b_vr @ a_rk).T, delta_kv, atol=1e-5 * np.abs(delta_kv).max())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's, about transformers
@pytest.mark.parametrize("which", ["few", "many"])
def test_peft_loads_the_adapter_to_the_same_logits(many, tmp_path, which):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    for form in ("lora", "model"):
        assert tiny.call("--mode=export", f"--workdir={many / which}", f"--to={tmp_path / form}", f"--as={form}") == 0
    plain = AutoModelForCausalLM.from_pretrained(tiny.MODEL, dtype=torch.float32)
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        before = plain(tokens).logits
        adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "lora")(tokens).logits
        edited = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)(tokens).logits
    assert float((edited - before).abs().max()) > 1e-2
    np.testing.assert_allclose(adapted.numpy(), edited.numpy(), atol=1e-4 * float(edited.abs().max()))


def test_a_form_that_is_not_known(finished, tmp_path, capsys):
    of_run = ("--mode=export", f"--workdir={finished}", f"--to={tmp_path / 'y'}")
    refused(capsys, "--as=loar: must be one of model, deltas, lora. Did you mean 'lora'?", *of_run, "--as=loar")
    refused(capsys, "--as=lora is the form of an export", *tiny.flags("--as=lora", f"--workdir={tmp_path / 'x'}"))
