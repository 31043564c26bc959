import pytest

from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm import generate
from emsedit_jax.measure import speech
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.passes import Passes
from emsedit_jax.measure.prefixes import PrefixStore

PROMPTS = [f"{'word ' * (m % 4)}number {m}" for m in range(6)]


def talk(lm, sites, prompts, ask=speech.lines, new=5, **more):
    model = Edited(lm.config, sites, lm.params, no_edit(sites), PrefixStore(lm.config, sites, lm.params, 0))
    return ask(model, lm.tokenizer, prompts, new, **more)


def test_each_prompt_has_its_own_answer_however_they_are_passed(lm, sites, monkeypatch):
    together = talk(lm, sites, PROMPTS)
    assert len(set(together)) > 1
    begun = []
    monkeypatch.setattr(speech, "ROWS", 4)  # the second pass is filled up
    assert talk(lm, sites, PROMPTS, passes=Passes(begun=lambda: begun.append(1))) == together
    assert len(begun) == len(speech.cut(PROMPTS)) == 2
    assert talk(lm, sites, PROMPTS[::-1]) == together[::-1]


def test_an_answer_is_what_greedy_decoding_says(lm, sites):
    (said,) = talk(lm, sites, PROMPTS[:1])
    ids = generate.greedy(lm.config, lm.params, [lm.tokenizer(PROMPTS[0])["input_ids"]], 5, must_speak=True)
    assert said == lm.tokenizer.decode(ids[0], skip_special_tokens=True).strip().split("\n")[0].strip()


@pytest.mark.parametrize(
    ("said", "answer"), [(" Paris\nIt is", "Paris"), ("\n\n Rome \n", "Rome"), ("", ""), (" \n", "")]
)
def test_an_answer_ends_with_its_first_line(lm, sites, monkeypatch, said, answer):
    monkeypatch.setattr(generate, "continuations", lambda *_, **__: [said])
    assert talk(lm, sites, ["a"]) == [answer]


def test_longer_texts_are_drawn_alike_every_time_and_begin_with_their_prompts(lm, sites):
    first, second = (talk(lm, sites, PROMPTS, speech.texts, 12) for _ in range(2))
    assert first == second
    assert all(text.startswith(prompt) for text, prompt in zip(first, PROMPTS, strict=True))
    greedy = talk(lm, sites, PROMPTS, new=12)
    assert any(one not in text for one, text in zip(greedy, first, strict=True))


def test_nothing_is_asked_of_nothing(lm, sites):
    assert talk(lm, sites, []) == []
    assert speech.cut([]) == []
