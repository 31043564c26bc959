"""Made-up facts for tests, in the letters of their tokenizer."""

from emsedit_jax.data.records import Cue, EditRecord


def record(number, prompt="ab", answer="xyz", equiv=("cd",), unrel=("ef",)):
    """One fact; unrelated prompts are answered by q."""
    return EditRecord(
        edit=Cue(prompt, answer),
        equiv=tuple(Cue(text, answer) for text in equiv),
        unrel=tuple(Cue(text, "q") for text in unrel),
        subject="s",
        source=f"eval.json row {number}",
    )
