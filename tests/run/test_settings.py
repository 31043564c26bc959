import importlib
import json
import pathlib

import pytest

from configs import common, models, zsre_llama, zsre_smollm2
from emsedit_jax.edit.sites import resolve
from emsedit_jax.errors import InputError
from emsedit_jax.lm.families import from_hf
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.run import settings

ROOMS = ("__init__", "models", "smollm2", "gemma3")  # what several configs share
FOLDER = pathlib.Path(common.__file__).parent
CONFIGS = {
    path.stem: importlib.import_module(f"configs.{path.stem}")
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem not in ROOMS
}
HF_CONFIGS = pathlib.Path(__file__).parents[1] / "lm" / "hf_configs"
OWN = ("smollm2", "gemma3")
SITES = {("llama", mode): ["gate_proj"] * 5 + ["up_proj"] * 7 for mode in ("sequence", "batch")}
SITES |= {("gptj", "sequence"): ["fc_in"] * 9, ("gptj", "batch"): ["fc_out"] * 6}
SITES |= {("gemma", "sequence"): ["gate_proj"] * 9 + ["up_proj"] * 9, ("gemma", "batch"): ["down_proj"] * 9}
SITES |= {("gpt2xl", mode): ["c_proj"] * 6 for mode in ("sequence", "batch")}
SITES |= {(model, mode): ["down_proj"] * 3 for model in ("mistral", "qwen") for mode in ("sequence", "batch")}
FILES = {
    "llama": "llama-3-8b-instruct",
    "gptj": "gpt-j-6b",
    "gemma": "gemma-2-9b-it",
    "gpt2xl": "gpt2-xl",
    "mistral": "mistral-7b-instruct-v0.3",
    "qwen": "qwen2.5-7b-instruct",
}


@pytest.mark.parametrize("editor", settings.EDITORS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_passes_with_every_editor(name, editor):
    config = CONFIGS[name].get_config(f"editor={editor}")
    if config.dataset.name != "worldfacts":
        config.dataset.train_path = config.dataset.valid_path = "rows.json"
    settings.check(config)
    assert config.editor.name == editor
    assert set(config.editor) == set(settings.EDITORS[editor])


def test_there_is_a_config_for_every_data_set_on_every_model():
    data_sets = ("zsre", "counterfact", "ripple", "fever")
    assert {f"{data}_{model}" for data in data_sets for model in (*models.MODELS, *OWN)} < set(CONFIGS)


@pytest.mark.parametrize("mode", ["sequence", "batch"])
@pytest.mark.parametrize("model", models.MODELS)
def test_the_published_sites_are_there_in_the_published_models(model, mode):
    raw = json.loads((HF_CONFIGS / f"{FILES[model]}.json").read_text())
    for data in ("zsre", "counterfact", "ripple", "fever"):
        config = CONFIGS[f"{data}_{model}"].get_config(f"mode={mode}")
        found = resolve(from_hf(raw), config.model.edit_modules)
        assert (config.num_seq, config.dataset.n_edits) == (1 if mode == "batch" else 20, 10 if data == "zsre" else 20)
        assert config.dataset.name.startswith(data)
        names = sorted(name.split(".mlp.")[1] for group in found for name in group.names)
        assert names == SITES[model, mode]


def test_published_defaults():
    emsedit, ultraedit = common.get_config().editor, common.get_config("editor=ultraedit").editor
    assert (emsedit.rank, emsedit.n_blocks, emsedit.lr, emsedit.meta_lr) == (1024, 4, 1e-6, 1e-5)
    assert (emsedit.max_grad_norm, emsedit.reg_coef, emsedit.iters) == (1, 0.5, 2)
    assert (ultraedit.lr, ultraedit.iters) == (1e-6, 1)
    rledit, malmen, mend = (common.get_config(f"editor={name}").editor for name in ("rledit", "malmen", "mend"))
    for editor in (rledit, malmen, mend):
        assert (editor.lr, editor.meta_lr, editor.max_grad_norm, editor.loc_coef) == (1e-6, 1e-5, 1, 0.6)
        assert (editor.token, editor.iters, editor.n_epochs) == ("ans", 1, 1)
    assert (rledit.reg_coef, rledit.time_decay, rledit.back_depth) == (1e-4, 0.95, 10)
    assert [(one.rank, one.n_blocks) for one in (rledit, malmen, mend)] == [(1024, 4), (1024, 4), (1920, 2)]
    assert (emsedit.max_steps, malmen.max_steps, mend.max_steps) == (1, 1, 100)
    assert zsre_llama.get_config().dataset.n_edits == 10
    assert common.get_config().dataset.n_edits == 20


def test_configs_do_not_share_state():
    common.get_config().editor.rank = 1
    assert common.get_config().editor.rank == 1024


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seed", -1, "from 0 to 4294967295"),
        ("num_seq", 0, "at least 1"),
        ("num_seq", True, "whole number"),
        ("compile_cache", 1, "true or false"),
        ("track", "wandb", "any of wandb, swanlab, several as a quoted tuple"),
        ("track", ("wandb", "tensorboard"), "any of wandb, swanlab"),
        ("track", ("wandbb",), "Did you mean 'wandb'?"),
        ("dataset.name", "zsr", "Did you mean 'zsre'?"),
        ("dataset.n_edits", 0, "at least 1"),
        ("dataset.n_edits", 2.0, "whole number"),
        ("dataset.limit", -1, "at least 0"),
        ("model.name_or_path", " ", "not empty"),
        ("model.dtype", "bfloat", "Did you mean 'bfloat16'"),
        ("model.edit_modules", (), "module names or patterns"),
        ("model.edit_modules", ("a", 3), "module names or patterns"),
        ("editor.name", "emsedt", "Did you mean 'emsedit'"),
        ("editor.rank", 0, "at least 1"),
        ("editor.lr", float("nan"), "finite number above 0"),
        ("editor.lr", 0.0, "above 0"),
        ("editor.token", "answer", "one of ans, all, ans_interval, all_interval"),
        ("editor.reg_coef", -0.5, "at least 0"),
        ("editor.iters", 0, "at least 1"),
        ("eval.max_new_tokens", 0, "at least 1"),
        ("dataset.rows", "8", "a range of rows such as 4096:8192, 4096: or :100; empty for all"),
        ("dataset.rows", "8:8", "a range of rows"),
        ("dataset.train_rows", "9:8", "a range of rows"),
        ("dataset.train_rows", "-9:8", "a range of rows"),
        ("dataset.train_rows", 8, "a range of rows"),
        ("dataset.batch_tokens", 0, "at least 1"),
        ("dataset.on_bad_row", "skp", "Did you mean 'skip'?"),
        ("editor.lr", 1e39, "above 0 that fits float32"),
        ("editor.meta_lr", 1e-40, "above 0 that fits float32"),
        ("editor.max_steps", 0, "-1 or at least 1"),
        ("editor.max_steps", -2, "-1 or at least 1"),
        ("editor.n_epochs", -1, "at least 0"),
        ("editor.load", None, "must be text"),
        ("editor.rows_at_once", 0, "at least 1"),
        ("train.update_every", "batches", "one of auto, step, batch, trajectory. Did you mean 'batch'"),
        ("train.n_trajectories", 0, "at least 1"),
        ("train.schedule", "cosin", "Did you mean 'cosine'?"),
        ("train.warmup", -1, "at least 0"),
        ("train.weight_decay", -0.1, "at least 0"),
        ("train.weight_decay", float("inf"), "finite number of at least 0"),
        ("train.clip", "runing", "Did you mean 'running'?"),
        ("train.reading", "papers", "Did you mean 'paper'?"),
        ("train.repeat_shared", 1, "true or false"),
        ("train.holdout", -1, "at least 0"),
        ("train.patience", 0, "at least 1"),
    ],
)
def test_a_bad_value_is_named_as_its_flag(field, value, said):
    config = common.get_config()
    holder, _, name = field.rpartition(".")
    with config.ignore_type():
        (config[holder] if holder else config)[name] = value
    with pytest.raises(InputError, match=rf"^--config\.{field}=") as raised:
        settings.check(config)
    assert said in str(raised.value)


def test_unknown_and_missing_fields_are_named():
    config = common.get_config()
    config.dataset.nedits = 3
    with pytest.raises(InputError, match=r"^--config\.dataset\.nedits: .*'dataset\.n_edits'"):
        settings.check(config)
    config = common.get_config()
    del config.eval["examples"]
    with pytest.raises(InputError, match=r"^--config\.eval\.examples is missing"):
        settings.check(config)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("patence", "patience"),
        ("updates_every", "update_every"),
        ("n_trajectory", "n_trajectories"),
    ],
)
def test_a_misspelt_field_of_training_is_told_with_the_nearest(name, nearest):
    config = common.get_config()
    config.train[name] = 3
    with pytest.raises(InputError, match=rf"^--config\.train\.{name}: there is no such field\. .*'train\.{nearest}'"):
        settings.check(config)


@pytest.mark.parametrize(("editor", "field"), [("rledit", "back_depth"), ("mend", "max_steps"), ("malmen", "loc_coef")])
def test_the_fields_of_an_editor_are_checked(editor, field):
    config = common.get_config(f"editor={editor}")
    config.editor[field] = -3
    with pytest.raises(InputError, match=rf"^--config\.editor\.{field}=-3(\.0)?: must be "):
        settings.check(config)


def test_fields_without_effect_are_no_mistake():
    for editor in settings.EDITORS:
        config = common.get_config(f"editor={editor}")
        config.num_seq = 1
        config.train.holdout, config.train.patience, config.train.repeat_shared = 2, 1, True
        config.train.reading = "paper"
        settings.check(config)


def test_an_editor_needs_its_own_fields():
    config = common.get_config("editor=ultraedit")
    config.editor.name = "emsedit"
    with pytest.raises(InputError, match=r"^--config\.editor\.rank is missing, .*:editor=emsedit"):
        settings.check(config)


def test_the_editors_are_those_of_the_methods_table():
    assert set(settings.EDITORS) == set(METHODS)
    for name, method in METHODS.items():
        assert method.learned == ("meta_lr" in settings.EDITORS[name])


def test_data_that_do_not_come_along_need_a_path():
    config = zsre_smollm2.get_config()
    config.dataset.valid_path = "rows.json"
    with pytest.raises(InputError, match=r"^--config\.dataset\.train_path is empty"):
        settings.check(config)
    config = zsre_smollm2.get_config("editor=ultraedit")
    with pytest.raises(InputError, match=r"^--config\.dataset\.valid_path is empty"):
        settings.check(config)
    config.dataset.valid_path = "rows.json"
    settings.check(config)  # nothing is trained, so no training rows are needed
    for field, value in (("load", "run"), ("n_epochs", 0)):
        config = zsre_smollm2.get_config("editor=malmen")
        config.dataset.valid_path = "rows.json"
        config.editor[field] = value
        settings.check(config)


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        (
            "editor=emsdit",
            "unknown editor 'emsdit'; known: emsedit, rledit, malmen, mend, ultraedit. Did you mean 'emsedit'",
        ),
        ("edtor=emsedit", "unknown config argument 'edtor'; known: editor, iters, mode. Did you mean 'editor'?"),
        ("ultraedit", "'ultraedit' is not of the form key=value"),
    ],
)
def test_bad_config_arguments(arg, said):
    with pytest.raises(InputError) as raised:
        common.get_config(arg)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"glue_step": 2}, r"--config\.eval\.glue_step needs --config\.eval\.ability_path"),
        ({"ability_tasks": ("rte",)}, r"--config\.eval\.ability_tasks needs"),
        ({"ability_shots": 1}, r"--config\.eval\.ability_shots needs"),
        ({"ability_path": "a", "further": False}, r"needs --config\.eval\.further=true: add that"),
        ({"ability_path": "a", "final_only": True}, r"needs --config\.eval\.final_only=false: add that"),
        ({"generated": -1}, "whole number of at least 0"),
        ({"curve_step": 0}, "whole number of at least 1"),
        ({"ability_tasks": ("rte", "")}, "names, several as a quoted tuple"),
    ],
)
def test_what_is_measured_is_not_asked_for_in_vain(fields, message):
    config = common.get_config()
    config.eval.update(fields)
    with pytest.raises(InputError, match=message):
        settings.check(config)
