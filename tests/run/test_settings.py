import pytest

from configs import common, quickstart, zsre_llama, zsre_smollm2
from emsedit_jax.errors import InputError
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.run import settings

CONFIGS = {"common": common, "quickstart": quickstart, "zsre_llama": zsre_llama, "zsre_smollm2": zsre_smollm2}


@pytest.mark.parametrize("editor", settings.EDITORS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_passes_with_every_editor(name, editor):
    config = CONFIGS[name].get_config(f"editor={editor}")
    if config.dataset.name == "zsre":
        config.dataset.train_path = config.dataset.valid_path = "rows.json"
    settings.check(config)
    assert config.editor.name == editor
    assert set(config.editor) == set(settings.EDITORS[editor])


def test_published_defaults():
    emsedit, ultraedit = common.get_config().editor, common.get_config("editor=ultraedit").editor
    assert (emsedit.rank, emsedit.n_blocks, emsedit.lr, emsedit.meta_lr) == (1024, 4, 1e-6, 1e-5)
    assert (emsedit.max_grad_norm, emsedit.reg_coef, emsedit.iters) == (1, 0.5, 2)
    assert (ultraedit.lr, ultraedit.iters) == (1e-6, 1)
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


@pytest.mark.parametrize(
    ("arg", "said"),
    [
        ("editor=emsdit", "unknown editor 'emsdit'; known: emsedit, ultraedit. Did you mean 'emsedit'"),
        ("edtor=emsedit", "unknown config argument 'edtor'; known: editor. Did you mean 'editor'?"),
        ("ultraedit", "'ultraedit' is not of the form key=value"),
    ],
)
def test_bad_config_arguments(arg, said):
    with pytest.raises(InputError) as raised:
        common.get_config(arg)
    assert said in str(raised.value)
