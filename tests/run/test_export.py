"""A finished run's edited model as a folder, from the command line."""

import numpy as np

from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.lm.identity import identify
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import edits
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
