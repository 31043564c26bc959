from pathlib import Path

import pytest

from emsedit_jax.data.faults import Fault
from emsedit_jax.data.records import Cue
from emsedit_jax.data.tokens import TokenItem, attempt, captured_positions, refuse, tokenize
from emsedit_jax.errors import InputError
from emsedit_jax.lm.model import load_tokenizer

MODEL = Path(__file__).parents[1] / "golden/models/llama"


def test_the_answer_follows_without_its_last_token_and_labels_start_at_the_prompts_last(letters):
    (item,) = tokenize([Cue("ab?", "xyz")], ["row"], letters)
    assert item == TokenItem(tokens=(0, 1, 2, 27, 24, 25), labels=(24, 25, 26), prompt_len=4)
    assert item.answer_start == 3


def test_an_answer_of_one_token_adds_no_input(letters):
    assert tokenize([Cue("ab", "x")], ["row"], letters) == [TokenItem((0, 1, 2), (24,), 3)]


def test_the_answer_is_tokenised_after_a_space_and_without_special_tokens():
    calls = []

    def tokenizer(texts, **options):
        calls.append((texts, options.get("add_special_tokens", True)))
        return {"input_ids": [[5]] * len(texts), "special_tokens_mask": [[0]] * len(texts)}

    tokenize([Cue("ab", "x"), Cue("c", "y z")], ["row 0", "row 1"], tokenizer)
    assert calls == [(["ab", "c"], True), ([" x", " y z"], False)]
    tokenize([Cue("ab", "x"), Cue("c", "y", "q")], ["row 0", "row 1"], tokenizer)
    assert calls[2:] == [(["ab", "c"], True), ([" x", " y"], False), ([" q"], False)]


@pytest.mark.parametrize("prompt", ["ab", " ab", "ab ", "\nab"])
@pytest.mark.parametrize("answer", ["x", " x", "x ", "\tx"])
def test_spaces_of_prompts_and_answers_are_kept_and_one_is_put_between(prompt, answer):
    seen = []

    def tokenizer(texts, **options):
        seen.extend(texts)
        return {"input_ids": [[5]] * len(texts), "special_tokens_mask": [[0]] * len(texts)}

    tokenize([Cue(prompt, answer)], ["row"], tokenizer)
    assert seen == [prompt, " " + answer]


@pytest.mark.parametrize("text", ["القاهرة", "שלום עולם", "東京は日本の首都", "안녕", "😀👩‍👩‍👧", "e\u0301"])
def test_any_script_comes_back_from_the_tokens_of_a_real_vocabulary(text):
    tokenizer = load_tokenizer(MODEL)
    (item,) = tokenize([Cue(f"{text}?", text)], ["row"], tokenizer)
    prompt, answer = item.tokens[: item.prompt_len], item.labels
    assert tokenizer.decode(prompt, skip_special_tokens=True) == f"{text}?"
    assert tokenizer.decode(answer) == f" {text}"
    assert item.tokens[item.prompt_len :] == answer[:-1]


def test_an_answer_to_be_beaten_is_tokenised_like_an_answer(letters):
    cues = [Cue("ab", "x"), Cue("c", "yz", versus="qrs"), Cue("d", "x", versus="x")]
    plain, longer, same = tokenize(cues, ["row"] * 3, letters)
    assert plain == TokenItem((0, 1, 2), (24,), 3, versus=())
    assert longer == TokenItem((0, 3, 25), (25, 26), 2, versus=(17, 18, 19))
    assert same.versus == same.labels == (24,)
    with pytest.raises(InputError, match=r"row 7: the answer to be beaten '!' tokenises to nothing"):
        tokenize([Cue("a", "b", versus="!")], ["row 7"], letters)


def test_nothing_to_tokenise_is_nothing(letters):
    assert tokenize([], [], letters) == []


def test_an_answer_that_tokenises_to_nothing_is_named(letters):
    with pytest.raises(InputError, match=r"1 bad row .*: eval.json row 7: the answer '!!' tokenises to nothing\. "):
        tokenize([Cue("a", "b"), Cue("a", "!!")], ["eval.json row 2", "eval.json row 7"], letters)


def test_a_prompt_of_special_tokens_alone_is_named(letters):
    with pytest.raises(InputError, match="row 7: the prompt '!!' tokenises to nothing"):
        tokenize([Cue("!!", "b")], ["row 7"], letters)


def test_what_cannot_be_used_stands_among_the_others(letters):
    cues = [Cue("ab", "cd"), Cue("!", "b"), Cue("a", "b"), Cue("a", "!"), Cue("a" * 10_000, "b")]
    first, blank, second, silent, long = attempt(cues, letters, max_tokens=100)
    assert [first, second] == tokenize([cues[0], cues[2]], ["row"] * 2, letters)
    assert [str(one) for one in (blank, silent, long)] == [
        "the prompt '!' tokenises to nothing",
        "the answer '!' tokenises to nothing",
        "prompt and answer take 10001 tokens, the model takes 100",
    ]


def test_all_that_cannot_be_used_is_told(letters):
    cues = [Cue("a" * count, "b") for count in (9, 1, 9, 9, 8)]
    with pytest.raises(InputError) as caught:
        tokenize(cues, [f"a.json row {m}" for m in range(5)], letters, max_tokens=4)
    assert str(caught.value) == (
        "4 bad rows (counting from 0): a.json rows 0, 2-3: prompt and answer take 10 tokens, the model takes 4; "
        "a.json row 4: prompt and answer take 9 tokens, the model takes 4. "
        "Correct these rows."
    )


def test_facts_can_be_left_out():
    refuse([], can_skip=True)
    with pytest.raises(InputError) as caught:
        refuse([Fault("a.json row 3 (edit)", "why")], can_skip=True)
    assert str(caught.value) == (
        "1 bad row (counting from 0): a.json row 3 (edit): why. "
        "Correct these rows, or leave them out with --config.dataset.on_bad_row=skip."
    )


def test_too_long_a_prompt_is_named(letters):
    cues = [Cue("ab", "cd")]
    assert len(tokenize(cues, ["row 7"], letters, max_tokens=4)[0].tokens) == 4
    with pytest.raises(InputError, match="row 7: prompt and answer take 4 tokens, the model takes 3"):
        tokenize(cues, ["row 7"], letters, max_tokens=3)


def test_too_long_an_answer_to_be_beaten_is_named(letters):
    cues = [Cue("ab", "c", versus="cd")]
    assert tokenize(cues, ["row 7"], letters, max_tokens=4)[0].versus == (3, 4)
    says = "row 7: prompt and the answer to be beaten take 4 tokens, the model takes 3"
    with pytest.raises(InputError, match=says):
        tokenize(cues, ["row 7"], letters, max_tokens=3)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("ans", [3, 4, 5]),
        ("ans_interval", [4]),
        ("all", [0, 1, 2, 3, 4, 5]),
        ("all_interval", [0, 2, 4]),
    ],
)
def test_token_rules_count_columns_from_the_prompts_left(rule, expected):
    item = TokenItem(tokens=(0, 1, 2, 27, 24, 25), labels=(24, 25, 26), prompt_len=4)
    assert captured_positions(item, rule).tolist() == expected


def test_an_unknown_token_rule_is_met_with_near_ones():
    with pytest.raises(InputError, match=r"no token rule 'answ'\. Did you mean 'ans'.* Known: ans, all, ans_interval"):
        captured_positions(TokenItem((0,), (1,), 1), "answ")
