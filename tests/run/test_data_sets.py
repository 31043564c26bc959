"""Whole runs on data sets that lack a kind of prompt, or ask more than others."""

import json

import pytest

from tests.run import tiny

OWN = [  # the first batch has nothing unrelated
    {"prompt": "The sky is", "answer": "green", "paraphrases": ["What is the sky?"]},
    {"prompt": "Grass is", "answer": "blue", "paraphrases": ["What is grass?", "What colour has grass?"]},
    {"prompt": "Snow is", "answer": "black", "unrelated": [{"prompt": "Coal is", "answer": "black"}]},
    {"prompt": "Blood is", "answer": "white"},
    {"prompt": "", "answer": "nothing"},
]
HOPS = [
    {
        "requested_rewrite": [
            {"prompt": "{} is in", "subject": name, "target_new": {"str": "Rome"}, "question": f"Where is {name}?"}
            for name in names
        ],
        "questions": ["Which river?"],
        "new_answer": "Tiber",
        "new_answer_alias": ["Tevere"],
        "new_single_hops": [{"question": "Where?", "answer": "Rome", "answer_alias": []}],
    }
    for names in (["a tower"], ["a bridge", "a gate"], ["a well"])
]
REQUESTS = [  # the first batch has nothing unrelated
    {
        "prompt": f"{name} is",
        "target_new": "green",
        "portability": {"colour of it": {"prompt": name, "ground_truth": "g"}},
    }
    | more
    for name, more in {
        "The sky": {},
        "Grass": {"rephrase_prompt": "What is grass?"},
        "Snow": {"rephrase_prompt": ["What is snow?", "What colour is snow?"]},
        "Blood": {"locality": {"near": {"prompt": ["Coal is", "Night is"], "ground_truth": ["black", "dark"]}}},
    }.items()
]


@pytest.mark.parametrize(
    ("name", "rows", "scores"),
    [
        ("facts", OWN, {"ES", "GS", "LS", "ES.exact", "ES.contained", "GS.exact", "LS.same", "LS.kl"}),
        ("mquake", HOPS, {"ES", "GS", "GS.contained", "asks.multi_hop", "asks.single_hop"}),
        ("easyedit", REQUESTS, {"ES", "GS", "LS", "LS.same", "LS.kl", "asks.colour_of_it"}),
    ],
)
def test_kinds_that_are_missing_are_left_out_to_the_last_page(tmp_path, capsys, name, rows, scores):
    path = tmp_path / ("rows.jsonl" if name == "facts" else "rows.json")
    path.write_text("\n".join(map(json.dumps, rows)) if name == "facts" else json.dumps(rows))
    asked = [f"--config.dataset.name={name}", f"--config.dataset.valid_path={path}", "--config.dataset.n_edits=2"]
    asked += ["--config.eval.further", "--config.eval.fluency=0", "--config.editor.full_curve"]
    asked += ["--config.dataset.on_bad_row=skip"]
    summary = tiny.train(tmp_path / "run", *asked, editor="ultraedit")
    assert scores <= set(summary["scores"]["edited"])
    assert ("LS" in summary["scores"]["edited"]) == (name != "mquake")
    assert summary["skipped_rows"]["eval"]["count"] == (1 if name == "facts" else 0)
    assert ("1 bad row" in capsys.readouterr().out) == (name == "facts")
    if name == "facts":
        assert "row 4: field 'prompt' is empty" in summary["skipped_rows"]["eval"]["rows"][0]
        assert summary["along"]["so_far"][0].keys() == {"edits", "ES", "GS"}
    else:
        asked, count = ("asks.multi_hop", 3) if name == "mquake" else ("asks.colour_of_it", 4)
        assert summary["items"]["edited"][asked] == count
    assert (tmp_path / "run" / "curve.png").is_file()
    assert tiny.call("--mode=eval", f"--workdir={tmp_path / 'run'}") == 0
    again = tiny.read(tmp_path / "run" / "eval.json")
    assert again["scores"] == summary["scores"]


def test_whole_answers_compete_where_a_data_set_names_two(tmp_path):
    rows = [
        {
            "requested_rewrite": {
                "prompt": "{} speaks", "subject": name, "target_new": {"str": "French"}, "target_true": {"str": "Norse"}
            },
            "paraphrase_prompts": [f"{name} says"],
            "neighborhood_prompts": ["Harald speaks", "Olaf speaks"],
        }
        for name in ("Erik", "Leif")
    ]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    asked = ["--config.dataset.name=counterfact", f"--config.dataset.valid_path={tmp_path / 'rows.json'}"]
    asked += ["--config.dataset.n_edits=2", "--config.num_seq=1", "--config.eval.further", "--config.eval.fluency=0"]
    summary = tiny.train(tmp_path / "run", *asked, editor="ultraedit")
    before, after = (summary["scores"][row] for row in ("unedited", "edited"))
    assert after["ES.margin"] > before["ES.margin"]
    assert {"GS.likelier", "LS.likelier", "LS.margin"} <= set(after)
    assert summary["items"]["edited"]["LS.likelier"] == 4
