"""Edits by hand, measured: on the tiny recorded Llama."""

from benchmarks import by_hand
from tests.session.small import FACTS, session


def test_facts_are_edited_a_few_at_a_time_into_the_model_as_it_was():
    one = session()
    pool = by_hand.given.read(FACTS, "eval")
    found = list(by_hand.reports(one, pool, 2))
    assert [len(report.facts) for report in found] == [2, 1]
    assert one.facts == []
    told = by_hand.row(found)
    assert told["ES"] == round(100 * sum(fact.asked.after for report in found for fact in report.facts) / 3, 1)
    assert "GS" in told
    again = list(by_hand.reports(one, pool[2:], 1))
    assert again[0].facts == found[1].facts  # nothing of the first two is left


def test_the_facts_are_of_two_sorts_and_bring_no_prompts_to_hold():
    pools = by_hand.facts()
    assert {name: len(pool) for name, pool in pools.items()} == {"sentences": 12, "questions": 12}
    assert not any(one.unrel for pool in pools.values() for one in pool)
    assert all(one.equiv for one in pools["questions"])
