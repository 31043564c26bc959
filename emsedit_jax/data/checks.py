"""What is to be said of facts before they are edited: which cannot be used, contradict each other or lack a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from emsedit_jax.data.batching import KINDS, tokenize_kind
from emsedit_jax.data.cues import EditRecord
from emsedit_jax.data.faults import Fault, listed, row_of
from emsedit_jax.data.tokens import Tokenizer

ALIKE = {"equiv": "a paraphrase", "unrel": "an unrelated prompt"}
_SHOWN = 60  # letters of a prompt in a message


def usable(
    records: Sequence[EditRecord], tokenizer: Tokenizer, max_tokens: int | None
) -> tuple[list[EditRecord], list[Fault]]:
    """(the records that the model can take, what is wrong with the rows of the others).

    A row with several facts is left out as a whole: its questions are about all of them.
    """
    faults = [fault for kind in KINDS for fault in tokenize_kind(records, kind, tokenizer, max_tokens)[1]]
    bad = {row_of(fault.source) for fault in faults}
    return [record for record in records if record.row not in bad], faults


def conflicts(records: Sequence[EditRecord]) -> tuple[str, ...]:
    """Prompts that are to get several answers: `"rows 3 and 9 answer 'X' differently"`."""
    asking: dict[str, list[EditRecord]] = {}
    for record in records:
        asking.setdefault(record.edit.prompt, []).append(record)
    return tuple(
        f"{listed([one.source for one in same])} answer {_shortened(prompt)!r} differently"
        for prompt, same in asking.items()
        if len({one.edit.answer for one in same}) > 1
    )


def _shortened(prompt: str) -> str:
    return prompt if len(prompt) <= _SHOWN else f"{prompt[:_SHOWN]}..."


def borrowed(records: Sequence[EditRecord]) -> tuple[str, ...]:
    """Of each kind, for how many facts the edited prompt stands in, in words."""
    counts = Counter(kind for record in records for kind in record.borrowed)
    return tuple(
        f"{counts[kind]} fact{'s' * (counts[kind] > 1)} without {what}: the edited prompt stands in"
        for kind, what in ALIKE.items()
        if counts[kind]
    )


def lacking(batches: Sequence[Sequence[EditRecord]], kind: str) -> EditRecord | None:
    """The first record of the first batch in which no record has a prompt of the kind, if there is such a batch."""
    return next((batch[0] for batch in batches if not any(getattr(record, kind) for record in batch)), None)
