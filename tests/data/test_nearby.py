"""What is looked at beside an edited fact."""

import os
import subprocess
import sys
from pathlib import Path

from emsedit_jax.data import nearby
from emsedit_jax.data.cues import Cue, EditRecord

ROOT = Path(__file__).parents[2]


def fact(prompt: str) -> EditRecord:
    return EditRecord(Cue(prompt, "x"), (), (), "", "row 0")


def test_questions_of_the_same_kind_with_other_answers():
    found = nearby.beside(fact("The capital of France is"), 12)
    assert len(found) == 12
    assert all("capital" in cue.prompt for cue in found)
    assert len({cue.answer for cue in found}) == len(found)


def test_nothing_about_what_is_edited():
    both = [fact("The capital of France is"), fact("What is the capital of Italy?")]
    for one in both:
        asked = [cue.prompt for cue in nearby.beside(one, 12, both)]
        assert asked
        assert not any("France" in prompt or "Italy" in prompt for prompt in asked)
    assert any("Italy" in cue.prompt for cue in nearby.beside(both[0], 40))


def test_the_same_in_every_process():
    code = (
        "from emsedit_jax.data import nearby; from emsedit_jax.data.cues import Cue, EditRecord; "
        "print([nearby.beside(EditRecord(Cue(p, 'x'), (), (), '', ''), 9) for p in "
        "('Who composed Finlandia?', 'Which city is home to Table Mountain?', 'What is a young pig called?')])"
    )

    def said(seed: str) -> bytes:
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True).stdout

    assert len({said(seed) for seed in "012"}) == 1


def test_the_same_every_time_and_nothing_where_no_word_is_known():
    assert nearby.beside(fact("Who wrote Hamlet?"), 4) == nearby.beside(fact("Who wrote Hamlet?"), 9)[:4]
    assert nearby.beside(fact("Xyzzy plugh"), 4) == ()
