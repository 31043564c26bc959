"""Asking that is broken off after any pass goes on behind it, to the same bits."""

import json

import jax
import pytest

from emsedit_jax.data.candidates import Choice, plan_choices
from emsedit_jax.data.questions import plan_items
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.edit.step import no_edit
from emsedit_jax.measure import speech
from emsedit_jax.measure.ask import ask, drift
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.likelihood import likelihoods
from emsedit_jax.measure.passes import Passes
from emsedit_jax.measure.prefixes import PrefixStore

ITEMS = [TokenItem((1, *range(20, 20 + m), 5), (6, 7), 1 + m) for m in range(1, 5)]
CHOICES = [Choice(f"number {m} is", ("large", "small", "very large indeed")) for m in range(3)]
PROMPTS = [f"{'word ' * (m % 4)}number {m}" for m in range(5)]
SORTS = {
    "ask": lambda model, lm, passes: ask(model, plan_items(ITEMS, 1), "read", passes),
    "drift": lambda model, lm, passes: drift(model, plan_items(ITEMS, 1), "far", passes),
    "likelihoods": lambda model, lm, passes: likelihoods(
        model, plan_choices(CHOICES, lm.tokenizer, max_tokens=9, longest=None), "likely", passes
    ),
    "lines": lambda model, lm, passes: speech.lines(model, lm.tokenizer, PROMPTS, 3, passes),
    "texts": lambda model, lm, passes: speech.texts(model, lm.tokenizer, PROMPTS, 3, passes),
}


class Broken(Exception):
    """Raised amid a sort of questions."""


@pytest.fixture(scope="module")
def edited(lm, sites):
    keys = jax.random.split(jax.random.key(3), len(sites))
    deltas = tuple(0.5 * jax.random.normal(key, zero.shape) for key, zero in zip(keys, no_edit(sites), strict=True))
    return Edited(lm.config, sites, lm.params, deltas, PrefixStore(lm.config, sites, lm.params, 64))


def broken_after(done):
    def ended():
        if len(passes.found) == done:
            raise Broken

    passes = Passes(ended=ended)
    return passes


def bits(found):
    return [one if isinstance(one, str) else (one.dtype, one.tobytes()) for one in found]


@pytest.mark.parametrize("sort", SORTS)
def test_asking_goes_on_behind_the_passes_that_are_done(lm, edited, monkeypatch, sort):
    monkeypatch.setattr(speech, "ROWS", 2)
    whole = Passes()
    wanted = bits(SORTS[sort](edited, lm, whole))
    assert len(whole.found) > 2
    for done in range(1, len(whole.found) + 1):
        begun, first = [], broken_after(done)
        with pytest.raises(Broken):
            SORTS[sort](edited, lm, first)
        again = Passes(json.loads(json.dumps(first.found)), lambda begun=begun: begun.append(1))
        assert bits(SORTS[sort](edited, lm, again)) == wanted
        assert len(begun) == len(whole.found) - done


def test_a_pass_is_read_while_the_next_one_runs():
    events = []

    def make(number, unit):
        events.append(f"make {number}: {unit}")
        return 2 * unit

    passes = Passes([70], lambda: events.append("begun"), lambda: events.append(f"ended {len(passes.found)}"))
    assert passes.go([7, 8, 9], make, lambda unit, made: [unit, made]) == [70, [8, 16], [9, 18]]
    assert events == ["begun", "make 1: 8", "begun", "make 2: 9", "ended 2", "ended 3"]
