import json

import numpy as np
import pytest

from emsedit_jax.data.records import load, parse_rows
from emsedit_jax.errors import InputError
from emsedit_jax.lm import model
from emsedit_jax.meta.gradient import OptimiserSpec
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.meta.trajectory import Learning
from emsedit_jax.run.prepare import batches_of_training, learning_of, prepare
from tests.run import tiny


def prepared(*more, editor="emsedit", **options):
    return prepare(tiny.command(*more, editor=editor).config, **options)


def file_rows(role):
    return json.loads((tiny.DATA / f"zsre_{role}.json").read_text())


def asked(plan):
    return [[record.edit.prompt for record in plan.records(j)] for j in range(len(plan))]


@pytest.fixture
def no_model(monkeypatch):
    def load(*_, **__):
        raise AssertionError("the model is loaded before the data are checked")

    monkeypatch.setattr(model, "load_lm", load)


def test_an_editor_that_learns_has_data_and_settings_to_learn_with(capsys):
    run = prepared("--config.editor.reg_coef=0.25")
    assert run.learning is not None
    assert run.learning.drift_coef == 0.25**2  # the published program multiplies by it twice
    assert [spec.rank for spec in run.editor.specs] == [8, 4]  # halved for the second step
    assert [group.names for group in run.editor.sites] == [tiny.SITES]
    train, evaluation = ([row["src"] for row in file_rows(role)] for role in ("train", "eval"))
    assert run.train_plan is not None
    assert asked(run.train_plan) == [train[:4], train[4:8]]
    assert asked(run.valid_plan) == [evaluation[:4], evaluation[4:8]]
    assert run.train_plan.shapes == run.valid_plan.shapes  # one compiled program for both
    assert run.score_plan.plan is run.valid_plan

    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["model", "data", "sites"]
    assert str(tiny.MODEL) in said[0]
    assert said[1] == "data     zsre: 8 of 60 to train on, 8 of 60 facts to edit in 2 batches of 4"
    assert said[2] == "sites    model.layers.{3..4}.mlp.gate_proj (2 of 32 x 56)"


@pytest.mark.parametrize(("editor", "options"), [("ultraedit", {}), ("emsedit", {"training": False})])
def test_without_training_no_training_data_are_read(editor, options, capsys):
    run = prepared("--config.dataset.train_path=nowhere.json", editor=editor, **options)
    assert run.learning is None
    assert run.train_plan is None
    assert "data     zsre: 8 of 60 facts to edit in 2 batches of 4" in capsys.readouterr().out


def test_a_seed_draws_training_and_editing_apart():
    runs = [prepared("--config.dataset.shuffle", f"--config.seed={seed}") for seed in (3, 3, 4)]
    draws = [[plan.rows for plan in (run.train_plan, run.valid_plan) if plan is not None] for run in runs]
    for mine, again in zip(draws[0], draws[1], strict=True):
        np.testing.assert_array_equal(mine, again)
    different = {str(rows.tolist()) for rows in (*draws[0], *draws[2])}
    assert len(different) == 4


def test_the_facts_of_the_package_need_no_file(capsys):
    run = prepared("--config.dataset.name=worldfacts", "--config.dataset.train_path=", "--config.dataset.valid_path=")
    assert len(run.valid_plan) == 2
    assert "worldfacts: 8 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.dataset.n_edits=31"], "zsre_train.json: num_seq=2 x n_edits=31 = 62 facts are needed, but .* 60"),
        (["--config.dataset.limit=7"], "zsre_train.json: num_seq=2 x n_edits=4 = 8 facts are needed, but .* 7"),
        (["--config.dataset.valid_path=nowhere.json"], "nowhere.json: there is no such file"),
        (
            ["--config.train.n_trajectories=8"],
            r"train.json: num_seq=2 x n_trajectories=8 x n_edits=4 = 64 facts are needed, but there are 60; lower "
            r"--config.num_seq or --config.train.n_trajectories or --config.dataset.n_edits, or give more rows\.$",
        ),
        (
            ["--config.train.n_trajectories=7", "--config.train.holdout=2"],
            r"\(num_seq=2 x n_trajectories=7 \+ holdout=2\) x n_edits=4 = 64 facts .* or --config.train.holdout or ",
        ),
        (
            ["--config.dataset.train_rows=10:17"],
            r"= 8 facts are needed, but there are 7 \(--config.dataset.train_rows=10:17\); lower",
        ),
        (["--config.dataset.rows=:7"], r"eval.json: .* but there are 7 \(--config.dataset.rows=:7\); lower"),
        (["--config.dataset.rows=50:61"], r"eval.json: rows 50:61 .* 0:60 .* by --config\.dataset\.rows=50:61\.$"),
        (["--config.dataset.train_rows=60:"], r"train.json: rows 60:60 .* by --config\.dataset\.train_rows=60:\.$"),
        (
            ["--config.train.warmup=1"],
            r"^--config.train.warmup=1: must be less than .* steps in all, 1, or the ",
        ),
    ],
)
def test_mistakes_in_the_data_are_told_before_the_model_is_loaded(no_model, flags, said):
    with pytest.raises(InputError, match=said) as raised:
        prepared(*flags)
    assert "\n" not in str(raised.value)


def test_step_wise_training_that_finds_too_few_rows(no_model):
    more = ["--config.editor.max_steps=100", "--config.dataset.n_edits=20", "--config.train.holdout=3"]
    said = r"train.json: \(1 training batch \+ holdout=3\) x n_edits=20 = 80 facts are needed, .* lower --config.train"
    with pytest.raises(InputError, match=said):
        prepared(*more, editor="malmen")


def test_one_file_in_two_ranges_of_rows():
    train = tiny.DATA / "zsre_train.json"
    more = [f"--config.dataset.valid_path={train}", "--config.dataset.rows=20:", "--config.dataset.train_rows=4:20"]
    run, source = prepared(*more), [row["src"] for row in file_rows("train")]
    assert run.train_plan is not None
    assert asked(run.train_plan) == [source[4:8], source[8:12]]
    assert asked(run.valid_plan) == [source[20:24], source[24:28]]
    limited = prepared(*more, "--config.dataset.limit=8", "--config.num_seq=1", "--config.dataset.n_edits=8")
    assert asked(limited.valid_plan) == [source[20:28]]


# ---------------------------------------------------------------------------------------------- what rows may lack


FACTS = [{"prompt": f"Fact {m} is", "answer": f"answer {m}", "paraphrases": [f"What is fact {m}?"]} for m in range(12)]
UNRELATED = [{"prompt": "The sky is", "answer": "blue"}]


def mine(tmp_path, rows, role, name="mine.jsonl"):
    """Flags that read these rows of one's own facts; the training rows are the good ones unless they are given."""
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, rows)))
    good = tmp_path / "good.jsonl"
    good.write_text("\n".join(map(json.dumps, FACTS)))
    paths = {"train": good, "valid": good} | {role: path}
    return ["--config.dataset.name=facts", *(f"--config.dataset.{one}_path={file}" for one, file in paths.items())]


def test_bad_rows_are_left_out_before_batches_are_drawn(tmp_path, capsys):
    rows = [*FACTS[:3], {"prompt": "p"}, 7, *FACTS[3:6], FACTS[6] | {"prompt": "long " * 3000}, *FACTS[7:9]]
    flags = mine(tmp_path, rows, "valid")
    with pytest.raises(
        InputError, match=r"mine\.jsonl: 2 bad rows .*: row 3: field 'answer' is missing; row 4: the row"
    ):
        prepared(*flags)
    run = prepared(*flags, "--config.dataset.on_bad_row=skip")
    good = [one["prompt"] for one in (*FACTS[:6], *FACTS[7:9])]
    assert asked(run.valid_plan) == [good[:4], good[4:]]
    *others, too_long = run.skipped["eval"]
    assert others == [
        "mine.jsonl row 3: field 'answer' is missing",
        "mine.jsonl row 4: the row is a number, not an object",
    ]
    assert too_long.startswith("mine.jsonl row 8 (edit): prompt and answer take ")
    assert run.skipped["train"] == ()
    assert f"; 3 bad rows of {tmp_path / 'mine.jsonl'} left out\n" in capsys.readouterr().out
    more = ["--config.dataset.on_bad_row=skip", "--config.num_seq=3"]
    with pytest.raises(
        InputError, match=r"12 facts are needed, but .* 9 \(2 bad rows left out, the first: mine.jsonl row 3"
    ):
        prepared(*flags, *more)
    with pytest.raises(
        InputError, match=r"9 facts are needed, but .* 8 \(3 bad rows left out, the first: mine.jsonl row 3"
    ):
        prepared(*flags, *more, "--config.dataset.n_edits=3")


def test_what_is_wrong_with_both_files_is_told_at_once(tmp_path, no_model):
    flags = mine(tmp_path, [*FACTS, {}], "train")
    bad = tmp_path / "none.jsonl"
    with pytest.raises(InputError, match=r"mine\.jsonl: 1 bad row .* row 12: .*none\.jsonl: there is no such file"):
        prepared(*flags, f"--config.dataset.valid_path={bad}")


def test_what_cannot_be_tokenised_is_told_of_both_files_and_all_kinds(tmp_path):
    long = "long " * 3000
    rows = [FACTS[0] | {"prompt": long}, FACTS[1] | {"paraphrases": [long]}, *FACTS[2:8]]
    flags = mine(tmp_path, rows, "train")
    both = (
        r"2 bad rows .*: mine.jsonl row 0 \(edit\): .*; mine.jsonl row 1 \(equiv\): .* 1 bad row .* other.jsonl row 3 "
    )
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(map(json.dumps, [*FACTS[:3], FACTS[3] | {"prompt": long}, *FACTS[4:8]])))
    with pytest.raises(InputError, match=both):
        prepared(*flags, f"--config.dataset.valid_path={other}")


@pytest.mark.parametrize(
    ("editor", "field", "more", "said"),
    [
        (
            "emsedit",
            "paraphrases",
            [],
            r"row 4 has a paraphrase, which emsedit learns from; .* --config.editor.n_epochs=0",
        ),
        (
            "malmen",
            "unrelated",
            ["--config.editor.max_steps=2"],
            r"row 4 has an unrelated prompt, which malmen .* set --config.editor.loc_coef=0, ",
        ),
        ("rledit", "unrelated", [], "row 4 has an unrelated prompt, which rledit "),
    ],
)
def test_training_rows_without_what_the_editor_learns_from(tmp_path, no_model, editor, field, more, said):
    full = [row | {"unrelated": UNRELATED} for row in FACTS]
    rows = [row if place not in range(4, 8) else row | {field: []} for place, row in enumerate(full)]
    flags = [*mine(tmp_path, rows, "train"), *more]
    with pytest.raises(InputError, match=f"mine.jsonl: no fact of the training batch of mine.jsonl {said}") as raised:
        prepared(*flags, editor=editor)
    assert "\n" not in str(raised.value)
    with pytest.raises(AssertionError, match="the model is loaded"):  # one of a batch is enough
        prepared(*flags, "--config.dataset.n_edits=5", "--config.num_seq=1", editor=editor)
    with pytest.raises(AssertionError, match="the model is loaded"):
        prepared(*flags, "--config.editor.n_epochs=0", editor=editor)


def test_nothing_unrelated_is_asked_of_an_editor_that_keeps_nothing_in_place(tmp_path):
    flags = mine(tmp_path, FACTS, "train")
    run = prepared(*flags, "--config.editor.loc_coef=0", editor="malmen")
    assert run.train_plan is not None
    assert [len(items) for items in run.train_plan.items["unrel"]] == [0]
    assert prepared(*flags).train_plan is not None  # EMSEdit


def test_rows_skipped_for_their_length_may_leave_a_batch_without_paraphrases(tmp_path):
    rows = [row if place < 4 else row | {"paraphrases": []} for place, row in enumerate(FACTS)]
    rows[7] |= {"paraphrases": ["long " * 3000]}
    flags = mine(tmp_path, rows, "train")
    more = ["--config.dataset.on_bad_row=skip", "--config.dataset.train_rows=0:9", "--config.dataset.n_edits=4"]
    with pytest.raises(InputError, match=r"no fact of the training batch of mine\.jsonl row 4 has a paraphrase"):
        prepared(*flags, *more)


def test_contradictions_and_borrowed_prompts_are_told(tmp_path, capsys):
    rows = [{"prompt": "p", "target_new": answer, "subject": "s"} for answer in ("a", "b", "a")]
    rows += [
        {"prompt": "q", "target_new": "a", "subject": "s", "Subject_Aliasing": [{"prompt": "o", "targets": ["a"]}]}
    ]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows))
    flags = ["--config.dataset.name=ripple_effect", f"--config.dataset.valid_path={path}", "--config.num_seq=1"]
    run = prepared(*flags, editor="ultraedit")
    assert run.conflicts == ("rows 0, 1 and 2 answer 'p' differently",)
    assert (
        "data     ripple_effect: 4 of 4 facts to edit in 1 batch of 4; 3 facts without a paraphrase: the edited prompt "
        "stands in; 4 facts without an unrelated prompt: the edited prompt stands in\n"
        "warning  rows 0, 1 and 2 answer 'p' differently: only the one that is edited last can hold; "
    ) in capsys.readouterr().out
    assert prepared(editor="ultraedit").conflicts == ()


# ---------------------------------------------------------------------------------------------- how networks learn


@pytest.mark.parametrize(
    ("editor", "more", "batches"),
    [
        ("malmen", [], 1),
        ("malmen", ["--config.editor.max_steps=3"], 3),
        ("malmen", ["--config.editor.max_steps=-1"], 15),  # 60 rows
        ("malmen", ["--config.editor.max_steps=100"], 15),
        ("mend", ["--config.editor.max_steps=-1", "--config.train.holdout=1"], 14),
        ("mend", ["--config.editor.max_steps=-1", "--config.train.holdout=1", "--config.train.n_trajectories=4"], 3),
        ("mend", ["--config.editor.max_steps=-1", "--config.dataset.train_rows=:9"], 2),
        ("emsedit", ["--config.editor.max_steps=-1"], 2),  # a trajectory has num_seq
        ("emsedit", ["--config.editor.max_steps=-1", "--config.num_seq=1"], 15),
        ("rledit", ["--config.num_seq=1"], 1),
    ],
)
def test_batches_of_a_trajectory(editor, more, batches):
    config = tiny.command(*more, editor=editor).config
    found = load("zsre", config.dataset.train_path, role="train", rows=parse_rows(config.dataset.train_rows))
    assert batches_of_training(config, METHODS[editor], len(found)) == batches


def learning(*more, editor="emsedit", batches=2):
    return learning_of(tiny.command(*more, editor=editor).config, METHODS[editor], batches)


def test_the_defaults_are_the_published_programs_choices():
    assert learning() == Learning(
        OptimiserSpec(1e-5, steps=1), 1.0, keep_edits=True, update_every="trajectory", drift_coef=0.25
    )
    assert learning("--config.num_seq=1") == Learning(
        OptimiserSpec(1e-5, steps=4), 1.0, keep_edits=False, update_every="step", drift_coef=0.5
    )
    assert learning(editor="rledit") == Learning(
        OptimiserSpec(1e-5, steps=1),
        1.0,
        keep_edits=True,
        update_every="trajectory",
        loc_coef=0.6,
        time_decay=0.95,
        back_depth=10,
    )
    for editor in ("malmen", "mend"):
        assert learning(editor=editor) == Learning(
            OptimiserSpec(1e-5, steps=2), 1.0, keep_edits=False, update_every="step", loc_coef=0.6
        )


def test_the_papers_reading_multiplies_by_reg_coef_once():
    paper = "--config.train.reading=paper"
    assert (learning().drift_coef, learning(paper).drift_coef) == (0.25, 0.5)
    assert (learning(editor="rledit").drift_coef, learning(paper, editor="rledit").drift_coef) == (0.0, 1e-4)
    assert learning(paper, "--config.num_seq=1").drift_coef == learning("--config.num_seq=1").drift_coef == 0.5
    assert learning(paper, editor="malmen") == learning(editor="malmen")


def test_a_shared_network_alone_is_stepped_once_for_each_edit_step():
    repeat = ("--config.train.repeat_shared", "--config.editor.iters=3")
    for editor, more, repeats in (
        ("emsedit", [], 1),
        ("emsedit", ["--config.num_seq=1"], 3),
        ("rledit", [], 1),
        ("malmen", [], 3),
        ("mend", [], 3),
    ):
        assert learning(*repeat, *more, editor=editor).repeats == repeats


def test_settings_of_the_optimiser():
    more = ["--config.train.schedule=linear", "--config.train.warmup=3", "--config.train.weight_decay=0.5"]
    long = ["--config.train.n_trajectories=3", "--config.editor.n_epochs=2", "--config.train.update_every=batch"]
    found = learning(*more, *long, "--config.train.clip=update", "--config.editor.max_grad_norm=2", batches=5)
    assert found.optimiser == OptimiserSpec(1e-5, "linear", 3, 30, 0.5, clip=2.0)
    assert (found.running_clip, found.max_grad_norm) == (False, 2.0)


@pytest.mark.parametrize(("more", "remat"), [((), False), (("--config.model.remat",), True)])
def test_passes_with_a_gradient_keep_less_where_that_is_asked_for(more, remat):
    run = prepared(*more)
    assert run.editor.config.remat == run.lm.config.remat == remat
