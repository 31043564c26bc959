"""lm-evaluation-harness on edited models: the numbers of a plain computation, and whole tasks."""

import dataclasses
import json
import shutil
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from emsedit_jax import harness
from emsedit_jax.edit.step import no_edit
from emsedit_jax.harness import Harness, of_run
from emsedit_jax.lm.generate import GREEDY, Sampling
from emsedit_jax.lm.identity import identify
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import cli, edits, storing, tasks
from tests.measure.conftest import lm as lm
from tests.measure.conftest import sites as sites
from tests.refusals import refused
from tests.run import tiny
from tests.run.conftest import finished as finished
from tests.run.conftest import quick_compiles as quick_compiles

PAIRS = [  # (what is in front, what follows)
    ("The capital of Peru is", " Lima"),
    ("The capital of Peru is", " a town"),
    ("The capital of Peru is ", "Lima"),  # the space belongs to what follows
    ("", "Lima is in Peru"),
    (" ", "Lima"),
    ("Water", ""),
    ("Where is it? " * 20, "In the north of Peru"),  # longer than the model reads
]


@pytest.fixture(scope="module")
def deltas(sites):
    keys = jax.random.split(jax.random.key(3), len(sites))
    return tuple(0.5 * jax.random.normal(key, zero.shape) for key, zero in zip(keys, no_edit(sites), strict=True))


@pytest.fixture(scope="module")
def written(lm, sites, deltas):
    """The model with the edits in its weights."""
    layers = [jax.tree.map(lambda leaf: leaf, layer) for layer in lm.params["layers"]]
    for group, delta_skv in zip(sites, deltas, strict=True):
        for layer, module, delta_kv in zip(group.layers, group.modules, delta_skv, strict=True):
            *path, last = module.split(".")
            place = layers[layer]
            for name in (*path, last):
                place = place[name]
            place["w"] = place["w"] + delta_kv
    return dataclasses.replace(lm, params=lm.params | {"layers": tuple(layers)})


@pytest.fixture(scope="module", params=["unedited", "edited"])
def asked(request, lm, sites, deltas, written):
    """(the harness's model, a plain model that has to say the same)."""
    if request.param == "unedited":
        return Harness(lm, max_length=64), lm
    return Harness(lm, sites, deltas, max_length=64), written


def of(kind, *given):
    return [Instance(kind, {}, one, m) for m, one in enumerate(given)]


def directly(lm, tokens, count):
    """(log-probability of the last so many tokens, whether each is the likeliest), in float64 from float32 logits."""
    ids = np.asarray(tokens)[None]
    logits_tV = np.asarray(lm.logits(ids, np.ones_like(ids))[0], np.float64)[-count - 1 : -1]
    logprob_tV = logits_tV - np.log(np.sum(np.exp(logits_tV), axis=-1, keepdims=True))
    last = tokens[-count:]
    right = [int(row.argmax()) == token for row, token in zip(logits_tV, last, strict=True)]
    return sum(row[token] for row, token in zip(logprob_tV, last, strict=True)), all(right)


def ids(lm, text, special=True):
    return lm.tokenizer(text, add_special_tokens=special)["input_ids"]


def parts(lm, context, continuation):
    """Token ids of what is in front, and of what follows: as the harness has them."""
    if not context:
        return [lm.tokenizer.bos_token_id], ids(lm, continuation, special=False)
    stripped = context.rstrip()
    front = ids(lm, stripped)
    return front or [lm.tokenizer.bos_token_id], ids(lm, context + continuation)[len(front) :]


# ---------------------------------------------------------------------------------------------- questions


def test_continuations_are_as_likely_as_computed_plainly(asked):
    model, plain = asked
    found = model.loglikelihood(of("loglikelihood", *PAIRS), disable_tqdm=True)
    assert len(found) == len(PAIRS)
    for (context, continuation), (logprob, greedy) in zip(PAIRS, found, strict=True):
        front, back = parts(plain, context, continuation)
        wanted, right = directly(plain, [*front, *back][-65:], len(back)) if back else (0.0, True)
        assert logprob == pytest.approx(wanted, rel=2e-5)
        assert greedy == right
        assert type(logprob) is float
        assert type(greedy) is bool
    long = parts(plain, *PAIRS[-1])
    assert len(long[0]) > 64  # its beginning was cut


def test_what_the_model_itself_says_is_greedy(asked):
    model, plain = asked
    front = ids(plain, PAIRS[0][0])
    ((first, right), (second, wrong)) = model._loglikelihood_tokens(
        [(None, front, [token]) for token in likeliest(plain, front)], disable_tqdm=True
    )
    assert (right, wrong) == (True, False)
    assert first > second


def likeliest(lm, tokens, count=2):
    """The likeliest next tokens."""
    row = np.asarray(lm.logits(np.asarray(tokens)[None], np.ones((1, len(tokens)), int)))[0, -1]
    return np.argsort(-row)[:count].tolist()


def test_edits_move_what_is_likely(lm, sites, deltas):
    given = of("loglikelihood", *PAIRS)
    rows = [Harness(lm, *edit).loglikelihood(given, disable_tqdm=True) for edit in ((), (sites, deltas))]
    same = Harness(lm, sites, no_edit(sites)).loglikelihood(given, disable_tqdm=True)
    for (before, _), (after, _), (idle, _), (_, text) in zip(*rows, same, PAIRS, strict=True):
        assert idle == pytest.approx(before, rel=1e-5)
        assert (abs(after - before) > 1e-2) == bool(text)


def test_a_long_text_is_read_in_windows_each_token_once(asked):
    model, plain = asked
    texts = ["Lima. " * 60, "Lima", ""]
    found = model.loglikelihood_rolling(of("loglikelihood_rolling", *((text,) for text in texts)), disable_tqdm=True)
    tokens = [plain.tokenizer.bos_token_id, *ids(plain, texts[0], special=False)]
    assert len(tokens) > 2 * 64
    wanted, start = 0.0, 1
    while start < len(tokens):
        stop = min(start + 64, len(tokens))  # the last window is as long as the others
        wanted += directly(plain, tokens[max(stop - 65, 0) : stop], stop - start)[0]
        start = stop
    assert found[0] == pytest.approx(wanted, rel=2e-5)
    short = ids(plain, "Lima", special=False)
    assert found[1] == pytest.approx(directly(plain, [tokens[0], *short], len(short))[0], rel=2e-5)
    assert found[2] == 0.0


def test_texts_are_generated_up_to_a_stop(asked):
    model, plain = asked
    prompts = ["The capital of Peru is", "Water boils at", "Lima"]
    whole = plain.generate(prompts, max_new_tokens=12)
    stop = whole[0][len(whole[0]) // 2 :][:2]
    given = [(prompts[0], {"until": [stop], "max_gen_toks": 12}), (prompts[1], {"max_new_tokens": 12})]
    given += [(prompts[2], {"until": stop, "max_gen_toks": 12, "do_sample": False, "temperature": 0.7})]
    found = model.generate_until(of("generate_until", *given), disable_tqdm=True)
    assert found == [whole[0].split(stop)[0], whole[1], whole[2].split(stop)[0]]
    assert len(found[0]) < len(whole[0])


def test_a_prompt_leaves_room_for_what_is_said(asked):
    model, plain = asked
    text = "Where is it? " * 20
    (found,) = model.generate_until(of("generate_until", (text, {"max_gen_toks": 8})), disable_tqdm=True)
    kept = plain.tokenizer.decode(ids(plain, text)[-56:])
    assert ids(plain, kept, special=False) == ids(plain, text)[-56:]
    prompt = np.asarray(ids(plain, text)[-56:])
    tokens = list(prompt)
    for _ in range(8):
        tokens += likeliest(plain, tokens, 1)
    assert found == plain.tokenizer.decode(tokens[56:], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ([], 256, GREEDY)),
        ({"until": "x", "max_gen_toks": 5}, (["x"], 5, GREEDY)),
        ({"until": ["x", "y"], "max_tokens": 6, "temperature": 0.5}, (["x", "y"], 6, GREEDY)),
        ({"do_sample": True, "temperature": 0.0, "max_completion_tokens": 7}, ([], 7, GREEDY)),
        ({"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.9}, ([], 256, Sampling(0.5, 4, 0.9))),
        ({"do_sample": True, "until": None}, ([], 256, Sampling(1.0, 0, 1.0))),
    ],
)
def test_what_a_task_says_of_generation(settings, expected):
    assert harness.wanted(settings) == expected


def test_what_a_model_does_not_take_is_told(lm, sites, deltas):
    model = Harness(lm, max_length=16)
    with refused("20 tokens are to follow a prompt", "16 at most", "raise max_length"):
        model._loglikelihood_tokens([(None, [1], [5] * 20)], disable_tqdm=True)
    with refused("16 new tokens are asked for", "raise max_length"):
        model.generate_until(of("generate_until", ("x", {"max_gen_toks": 16})), disable_tqdm=True)
    with refused("0 deltas are given for 1 groups of sites"):
        Harness(lm, sites)
    assert Harness(lm, max_length=10**6).max_length == lm.config.max_length


def test_chats_are_written_as_the_tokenizer_has_them(lm):
    model = Harness(lm)
    said = [{"role": "user", "content": "Where is Lima?"}]
    with refused("has no chat template"):
        model.apply_chat_template(said)
    template = "{% for one in messages %}<{{ one.role }}>{{ one.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}<a>{% endif %}"
    talking = Harness(dataclasses.replace(lm, tokenizer=load_lm(tiny.MODEL).tokenizer))
    talking.tokenizer.chat_template = template
    assert talking.apply_chat_template(said) == "<user>Where is Lima?<a>"
    assert talking.chat_template(True) == template
    assert talking.tokenizer_name


def test_a_text_that_begins_with_the_first_token_gets_no_second(lm):
    model = Harness(lm)
    assert model.tok_encode("<bos>Lima") == model.tok_encode("Lima") == [1, *ids(lm, "Lima", special=False)]


# ---------------------------------------------------------------------------------------------- whole tasks

ITEMS: list[dict[str, Any]] = [
    {"question": "The capital of Peru is", "choices": [" Lima", " Rome", " a red house"], "answer": 0},
    {"question": "Water is", "choices": [" dry", " wet", " a"], "answer": 1},
    {"question": "Snow is", "choices": [" black", " white", " in"], "answer": 1},
]
TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "tiny_said": {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "tiny_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tasks of our own: YAML (which JSON is), with its items beside it."""
    path = tmp_path_factory.mktemp("tasks")
    (path / "items.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    for name, task in TASKS.items():
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": str(path / "items.jsonl")}}
        common = {"task": name, "test_split": "train", "doc_to_text": "{{question}}", "metadata": {"version": 1.0}}
        (path / f"{name}.yaml").write_text(json.dumps(files | common | task))
    return path


def identity(model):
    return identify(str(tiny.MODEL), model._model.params)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Data sets are kept in a folder of the test, and nothing is asked of the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def evaluate(*args):
    return cli.exit_code(harness.main, ["harness", *args])


@pytest.mark.filterwarnings("ignore")
def test_tasks_run_on_a_runs_edits(finished, folder, tmp_path, cached, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    found = {}
    for more in ([], ["--unedited"]):
        command = [f"--workdir={run}", "--tasks=tiny_*", f"--include_path={folder}", *more]
        assert evaluate(*command) == 0
        (path,) = (run / "harness").glob("unedited-*" if more else "edited-*")
        found[bool(more)] = storing.read_json(path, "")
        said = capsys.readouterr().out
        assert f"results in {path}" in said
        assert "|tiny_choice|" in said.replace(" ", "")
    edited, unedited = found[False], found[True]
    assert set(edited["results"]) == set(TASKS)
    model = of_run(run)
    pairs = [(one["question"], choice) for one in ITEMS for choice in one["choices"]]
    logprobs = np.reshape([logprob for logprob, _ in model.loglikelihood(of("loglikelihood", *pairs), True)], (3, 3))
    right = logprobs.argmax(axis=1) == [one["answer"] for one in ITEMS]
    assert edited["results"]["tiny_choice"]["acc,none"] == pytest.approx(right.mean())
    bits = [one["results"]["tiny_text"]["bits_per_byte,none"] for one in (edited, unedited)]
    texts = [(one["question"],) for one in ITEMS]
    total = sum(model.loglikelihood_rolling(of("loglikelihood_rolling", *texts), True))
    assert bits[0] == pytest.approx(-total / np.log(2) / sum(len(text) for (text,) in texts), rel=1e-6)
    assert bits[0] != bits[1]
    assert (edited["config"]["edited"], unedited["config"]["edited"]) == (True, False)
    assert edited["config"]["weights"] == unedited["config"]["weights"] == identity(model).weights


@pytest.mark.filterwarnings("ignore")
def test_the_harness_itself_knows_the_model(finished, folder, tmp_path, cached):
    import lm_eval
    from lm_eval.tasks import TaskManager

    run = shutil.copytree(finished, tmp_path / "run")
    index = TaskManager(include_path=str(folder), include_defaults=False)
    more = {"tasks": ["tiny_choice"], "task_manager": index, "limit": 2, "bootstrap_iters": 0}
    found = lm_eval.simple_evaluate("emsedit_jax", model_args=f"workdir={run},unedited=True", batch_size=8, **more)
    assert found["n-samples"]["tiny_choice"]["effective"] == 2
    assert found["config"]["edited"] is False
    made = get_model("emsedit_jax").create_from_arg_obj({"workdir": str(run), "max_length": 32}, {"device": "cpu"})
    assert isinstance(made, Harness)
    assert made.max_length == 32
    with refused("model_args: workdr is not known", "Did you mean 'workdir'?"):
        Harness.create_from_arg_string(f"workdr={run}")
    with refused("workdir=RUN is missing"):
        Harness.create_from_arg_string("unedited=True")


def test_a_runs_model_is_the_one_that_was_edited(finished):
    model = of_run(finished)
    saved = edits.load(finished / "edits.safetensors", model._model.sites, identity(model))
    assert all(np.array_equal(a, b) for a, b in zip(model._model.deltas, saved, strict=True))
    assert of_run(finished, unedited=True)._model.deltas == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--tasks=tiny_choise"], "--tasks=tiny_choise: there is no such task. Did you mean 'tiny_choice'"),
        (["--tasks= ,"], "--tasks is empty"),
        (["--tasks=tiny_choice", "--include_path=nowhere"], "--include_path=nowhere: there is no such folder"),
        (["--tasks=tiny_choice", "--workdir=nowhere"], "nowhere holds no run (no config.json)"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(finished, folder, capsys, monkeypatch, args, said):
    from lm_eval import tasks as theirs

    index = theirs.TaskManager

    def small(include_path=None, include_defaults=True):
        return index(include_path=include_path, include_defaults=False)  # theirs takes long

    monkeypatch.setattr(theirs, "TaskManager", small)
    assert evaluate(f"--workdir={finished}", f"--include_path={folder}", *args) == cli.BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize("args", [["--tasks=x"], ["--workdir=x"], ["--workdir=x", "--tasks=x", "--limit=0"]])
def test_flags_that_are_missing_or_wrong_end_the_command(args, capsys):
    with pytest.raises(SystemExit) as stop:
        tasks.read_flags(["harness", *args])
    assert stop.value.code == cli.BAD_INPUT
    assert "error: " in capsys.readouterr().err


def test_without_the_harness_the_way_to_it_is_told():
    code = "import sys; sys.modules['lm_eval'] = None; import {}"
    done = tiny.python("-c", code.format("emsedit_jax.harness"))
    assert "pip install -e '.[eval]' in the clone" in done.stderr.splitlines()[-1]
    assert tiny.python("-c", code.format("emsedit_jax, emsedit_jax.run.main")).returncode == 0
    run = (
        "import sys, runpy; sys.modules['lm_eval'] = None; runpy.run_module('emsedit_jax.harness', run_name='__main__')"
    )
    done = tiny.python("-c", run)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: emsedit_jax.harness needs lm-evaluation-harness")
