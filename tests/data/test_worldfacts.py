"""The embedded facts: what ships is what the tables say, and rows keep what the probes of locality rely on."""

import shutil
from collections import Counter
from typing import Literal

import pytest

from emsedit_jax.data import build_worldfacts, embedded, records
from emsedit_jax.errors import InputError

FACTS = build_worldfacts.read_facts()
BY_ID = {fact.id: fact for fact in FACTS}
BY_PROMPT = {fact.prompts[0]: fact for fact in FACTS}
ROWS = {split: embedded.rows(split) for split in embedded.SPLITS}
ALL = [row for split in embedded.SPLITS for row in ROWS[split]]


def subjects(split: Literal["train", "eval"]) -> set[str]:
    return {row["subject"].casefold() for row in ROWS[split]}


# ---------------------------------------------------------------------------------------------- what ships


def test_the_shipped_files_are_what_the_tables_build(tmp_path):
    build_worldfacts.write(tmp_path)
    for split in embedded.SPLITS:
        assert (tmp_path / f"{split}.jsonl").read_bytes() == embedded.path(split).read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["eval.jsonl", "train.jsonl"]


def test_every_fact_of_every_table_is_shipped_once():
    assert sorted(row["id"] for row in ALL) == sorted(BY_ID)
    assert len(BY_ID) == len(FACTS) >= 1000
    tables = {file.stem for file in build_worldfacts.SOURCES.glob("*.csv")} - {"relations"}
    assert {row["relation"] for row in ALL} == tables
    assert len(tables) >= 12


def test_a_third_or_so_of_every_relation_is_for_evaluation():
    total, ours = (Counter(row["relation"] for row in rows) for rows in (ALL, ROWS["eval"]))
    for relation, count in total.items():
        assert 0.2 <= ours[relation] / count <= 0.45, relation
    assert 0.28 <= len(ROWS["eval"]) / len(ALL) <= 0.34


@pytest.mark.parametrize("split", embedded.SPLITS)
def test_records_reads_both_files(split):
    facts = records.load("worldfacts", embedded.path(split), role=split)
    assert len(facts) == len(ROWS[split])
    first = ROWS[split][0]
    assert facts[0].edit == records.Cue(first["prompt"], first["answer_new"])
    assert facts[0].equiv[0] == records.Cue(first["paraphrases"][0], first["answer_new"])
    assert facts[0].unrel[0] == records.Cue(*first["unrelated"][0].values())


# ---------------------------------------------------------------------------------------------- rows


def test_texts_are_full_stripped_and_end_before_the_answer():
    for row in ALL:
        fields = ("id", "relation", "subject", "prompt", "answer_true", "answer_new")
        others = [text for other in row["unrelated"] for text in (other["prompt"], other["answer"])]
        for text in [*(row[field] for field in fields), *row["paraphrases"], *others]:
            assert text, row
            assert text == text.strip(), row
            assert "  " not in text, row
            assert "{" not in text, row
        prompts = [row["prompt"], *row["paraphrases"]]
        assert len(set(prompts)) == len(prompts) >= 3
        for prompt in prompts:
            assert row["subject"].casefold() in prompt.casefold(), row
            assert prompt[-1] != ".", row


def test_no_two_rows_ask_the_same():
    prompts = [prompt for row in ALL for prompt in (row["prompt"], *row["paraphrases"])]
    assert [prompt for prompt, count in Counter(prompts).items() if count > 1] == []


def test_the_true_answer_is_the_tables():
    for row in ALL:
        fact = BY_ID[row["id"]]
        assert (row["relation"], row["subject"], row["answer_true"]) == (fact.relation, fact.subject, fact.answer)


def test_the_new_answer_is_another_of_its_relation_and_false():
    pools = {relation: {f.answer for f in FACTS if f.relation == relation} for relation in {f.relation for f in FACTS}}
    for row in ALL:
        assert row["answer_new"] in pools[row["relation"]]
        for truth in BY_ID[row["id"]].truths:
            assert row["answer_new"].casefold() != truth.casefold(), row


def test_new_answers_are_many_not_a_few():
    for relation, rows in ((r, [row for row in ALL if row["relation"] == r]) for r in {f.relation for f in FACTS}):
        pool = {row["answer_true"] for row in rows}
        commonest = Counter(row["answer_new"] for row in rows).most_common(1)[0][1]
        assert commonest <= max(6, 3 * len(rows) / len(pool)), relation


@pytest.mark.parametrize("split", embedded.SPLITS)
def test_unrelated_prompts_are_well_known_truths_of_other_relations_and_subjects(split):
    for row in ROWS[split]:
        assert len(row["unrelated"]) >= 2
        chosen = [BY_PROMPT[other["prompt"]] for other in row["unrelated"]]
        assert [fact.answer for fact in chosen] == [other["answer"] for other in row["unrelated"]]
        assert row["relation"] not in {fact.relation for fact in chosen}
        assert {fact.subject.casefold() for fact in chosen} <= subjects(split) - {row["subject"].casefold()}
        assert len({fact.subject for fact in chosen}) == len(chosen)
        assert {(fact.fame, fact.probes) for fact in chosen} == {(1, True)}


def test_unrelated_prompts_name_nothing_of_the_edit():
    for row in ALL:
        said = " ".join(f"{other['prompt']} {other['answer']}" for other in row["unrelated"])
        for name in (row["subject"], row["answer_true"], row["answer_new"]):
            if len(name) > 4:  # shorter ones (symbols, numbers, Io) stand inside other words
                assert name not in said.replace(name + "n", ""), row


def test_no_subject_is_in_both_splits():
    assert subjects("train") & subjects("eval") == set()


@pytest.mark.parametrize("split", embedded.SPLITS)
def test_the_first_rows_mix_relations_and_repeat_no_subject(split):
    names = [row["subject"].casefold() for row in ROWS[split]]
    assert len(set(names[:100])) == 100
    for start in range(0, len(names), 10):
        assert len(set(names[start : start + 10])) == len(names[start : start + 10])
    assert len({row["relation"] for row in ROWS[split][:100]}) >= 12
    assert Counter(row["relation"] for row in ROWS[split][:100]).most_common(1)[0][1] <= 30


# ---------------------------------------------------------------------------------------------- plain truths


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("capital:France", "Paris"),
        ("currency:Japan", "yen"),
        ("language:Brazil", "Portuguese"),
        ("continent:Kenya", "Africa"),
        ("symbol:gold", "Au"),
        ("atomic_number:carbon", "6"),
        ("city_country:Mumbai", "India"),
        ("state_capital:Texas", "Austin"),
        ("author:War and Peace", "Leo Tolstoy"),
        ("painter:Guernica", "Pablo Picasso"),
        ("composer:Swan Lake", "Pyotr Ilyich Tchaikovsky"),
        ("director:Jaws", "Steven Spielberg"),
        ("inventor:phonograph", "Thomas Edison"),
        ("landmark_city:Eiffel Tower", "Paris"),
        ("sport:Serena Williams", "tennis"),
        ("moon_planet:Phobos", "Mars"),
    ],
)
def test_plain_truths(key, answer):
    assert BY_ID[key].answer == answer


def test_an_article_belongs_to_the_sentence_not_to_the_subject():
    fact = BY_ID["capital:Czech Republic"]
    assert fact.prompts[0] == "The capital of the Czech Republic is"
    assert BY_ID["continent:Netherlands"].prompts[0] == "The Netherlands is a country on the continent of"


# ---------------------------------------------------------------------------------------------- the building


def test_a_new_table_moves_no_fact_to_the_other_split():
    home = build_worldfacts.split_subjects(FACTS)
    fewer = [fact for fact in FACTS if fact.relation != FACTS[-1].relation]
    for subject, split in build_worldfacts.split_subjects(fewer).items():
        assert home[subject] == split


def test_a_bad_line_is_named(tmp_path):
    sources = tmp_path / "sources"
    shutil.copytree(build_worldfacts.SOURCES, sources)
    table = (sources / "sport.csv").read_text(encoding="utf-8").split("\n")
    table[2] = "Pelé,soccer,"
    (sources / "sport.csv").write_text("\n".join(table), encoding="utf-8")
    with pytest.raises(InputError, match=r"sport\.csv line 3: not 4 cells"):
        build_worldfacts.write(tmp_path, sources)
    table[2] = "Pelé,soccer,,9"
    (sources / "sport.csv").write_text("\n".join(table), encoding="utf-8")
    with pytest.raises(InputError, match=r"sport\.csv line 3: subject, answer and a fame"):
        build_worldfacts.write(tmp_path, sources)
    assert not list(tmp_path.glob("*.jsonl*"))


def test_a_relation_with_one_answer_has_no_counterfactual():
    fact = build_worldfacts.Fact("tail", "dog", ("A dog wags its",), "tail", (), 1)
    with pytest.raises(InputError, match=r"tail:dog: every answer of tail\.csv is true"):
        build_worldfacts.counterfactual(fact, [fact])
