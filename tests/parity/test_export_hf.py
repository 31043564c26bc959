"""Edited models written back, against what Hugging Face's transformers reads from the folder."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from emsedit_jax.edit import sites as edit_sites
from emsedit_jax.lm import adapter
from emsedit_jax.lm.adapter import LowRank
from emsedit_jax.lm.export import export
from emsedit_jax.lm.families import FAMILIES
from emsedit_jax.lm.identity import identify
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import cli, edits
from emsedit_jax.run import main as program
from emsedit_jax.types import Deltas, Sites
from tests.parity.random_models import built, ours, ragged, reference, torch

LLAMA = ("model.layers.1.mlp.gate_proj", "model.layers.{0,2}.mlp.down_proj")
EDITED = {  # family -> (layout, edit sites)
    "llama": ("biases", LLAMA),
    "mistral": ("window", LLAMA),
    "qwen2": ("tied", LLAMA),
    "qwen3": ("tied", LLAMA),
    "smollm3": ("biases", LLAMA),
    "gemma2": ("window", LLAMA),
    "gemma3_text": ("window", LLAMA),
    "gpt2": ("plain", ("transformer.h.{0,2}.mlp.c_fc", "transformer.h.1.mlp.c_proj")),
    "gptj": ("plain", ("transformer.h.{0,2}.mlp.fc_in", "transformer.h.1.mlp.fc_out")),
}


def drawn(sites: Sites) -> Deltas:
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(0.3 * rng.normal(size=(len(group.layers), group.k, group.v)), jnp.float32) for group in sites
    )


@pytest.mark.parametrize("shards", ["whole", "sharded"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", EDITED)
def test_transformers_reads_the_edited_model(tmp_path, family, dtype, shards):
    layout, patterns = EDITED[family]
    theirs = built(family, layout, seed=0).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "source", max_shard_size="20KB" if shards == "sharded" else "1GB")
    before = ours(tmp_path / "source")
    sites = edit_sites.resolve(before.config, patterns)
    target = export(tmp_path / "source", tmp_path / "edited", before.config, sites, drawn(sites))
    found, info = transformers.AutoModelForCausalLM.from_pretrained(
        target, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert len(list(target.glob("*.safetensors"))) == len(list((tmp_path / "source").glob("*.safetensors")))
    assert (len(list(target.glob("*.safetensors"))) > 1) == (shards == "sharded")
    ids, mask = ragged(1, "right")
    expected = reference(found.eval(), ids, mask)[mask == 1]
    np.testing.assert_allclose(np.asarray(ours(target).logits(ids, mask))[mask == 1], expected, rtol=0, atol=1e-4)
    unedited = np.asarray(before.logits(ids, mask))[mask == 1]
    assert np.abs(expected - unedited).mean() > 0.1
    edited = {name for group in sites for name in group.names}
    for (name, old), (_, new) in zip(theirs.named_parameters(), found.named_parameters(), strict=True):
        changed = name.removesuffix(".weight") in edited
        assert changed == (not torch.equal(old.float(), new)), name


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's, about transformers
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])  # gpt2 stores [inputs, outputs]
def test_peft_adds_what_was_edited(tmp_path, family, dtype):
    peft = pytest.importorskip("peft", reason="peft is of the optional extra 'parity'")
    layout, patterns = EDITED[family]
    kind = getattr(torch, dtype)
    built(family, layout, seed=0).to(kind).save_pretrained(tmp_path / "base")
    config = ours(tmp_path / "base").config
    sites, rng = edit_sites.resolve(config, patterns), np.random.default_rng(0)

    def drawn(group, rank):
        return LowRank(*(0.3 * rng.normal(size=(rank, n)).astype(np.float32) for n in (group.k, group.v)))

    changes = {name: drawn(group, 1 + m) for group in sites for m, name in enumerate(group.names)}
    adapter.write_lora(tmp_path / "lora", config, changes, str(tmp_path / "base"))
    load = transformers.AutoModelForCausalLM.from_pretrained
    edited = load(tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        for name, (a_rk, b_rv) in changes.items():
            delta_kv = torch.as_tensor(a_rk.T @ b_rv)
            edited.get_submodule(name).weight += delta_kv if family == "gpt2" else delta_kv.T
        tokens = torch.arange(2, 40)[None]
        expected = edited.eval()(tokens).logits
        plain = load(tmp_path / "base", dtype=kind).eval()
        before = plain(tokens).logits.float()
        adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "lora").eval()(tokens).logits.float()
        rounded = edited.to(kind)(tokens).logits.float()

    def off(logits):
        return float((logits - expected).norm() / expected.norm())

    assert off(adapted) < (1e-5 if dtype == "float32" else 2 * off(rounded))
    assert off(before) > 10 * max(off(adapted), off(rounded))


def test_every_family_is_written():
    assert set(EDITED) == set(FAMILIES)


@pytest.mark.long
def test_real_edits_of_the_real_model(tmp_path):
    flags = ["--config=configs/quickstart.py:editor=ultraedit", "--config.num_seq=2", "--config.eval.final_only"]
    flags += ["--config.eval.examples=0", f"--workdir={tmp_path / 'run'}"]
    command = cli.read(["launch.py", *flags])
    program.run(command.config, command.workdir, command.mode)
    target = tmp_path / "edited"
    written = cli.read(["launch.py", "--mode=export", f"--workdir={tmp_path / 'run'}", f"--to={target}"])
    program.run(written.config, written.workdir, written.mode, written.to)
    lm = load_lm("smollm2-135m")
    sites = edit_sites.resolve(lm.config, command.config.model.edit_modules)
    deltas = edits.load(tmp_path / "run" / "edits.safetensors", sites, identify("", lm.params))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(target)
    after = load_lm(str(target))
    texts = ["The capital of France is", "What city was Lionel Messi born in?", "On which continent is Peru?"]
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = theirs(**ids).logits.numpy()
            said = theirs.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
        own = np.asarray(after.logits(ids["input_ids"].numpy(), ids["attention_mask"].numpy()))
        np.testing.assert_allclose(own, logits, rtol=0, atol=1e-3)
        for words in (after.generate([text], 16), lm.generate([text], 16, sites=sites, deltas=deltas)):
            assert words == tokenizer.batch_decode(said[None], skip_special_tokens=True)
