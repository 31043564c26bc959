"""`EditRecord`s -> the `EditTask`s of a run: drawn by seed, tokenised once, packed on demand, one shape per kind."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from emsedit_jax.data.cues import Cue, EditRecord
from emsedit_jax.data.faults import Fault
from emsedit_jax.data.fields import RowFault
from emsedit_jax.data.packing import PackShape, sorted_order
from emsedit_jax.data.parts import dealt, measured, pack_parts, renumbered
from emsedit_jax.data.shapes import cut_evenly, plan_shapes, roomy_shape
from emsedit_jax.data.tokens import TokenItem, Tokenizer, attempt, check_token_rule, refuse
from emsedit_jax.errors import InputError
from emsedit_jax.types import LANES, Batch, EditTask

KINDS = ("edit", "equiv", "unrel")


@dataclasses.dataclass(frozen=True, eq=False)
class EditPlan:
    """The edit batches of a run, tokenised once and packed when asked for: `plan[j]` is the j-th `EditTask`.

    Prompts of a kind are given record after record, and inside a record cue after cue; `Batch.item_a`, `order` and
    `owners` refer to that order.
    """

    rows: Int[np.ndarray, "num_batches n_edits"]  # which records, in the order drawn
    shapes: Mapping[str, Sequence[PackShape]]  # kind -> shapes, smaller ones first; the last is large enough for all
    batch_size: int  # prompts of a micro-batch
    token: str  # token rule
    drawn: Sequence[Sequence[EditRecord]]  # [num_batches][n_edits]
    items: Mapping[str, Sequence[Sequence[TokenItem]]]  # kind -> [num_batches][prompts]
    pass_tokens: int | None = None  # tokens of a part of a pass; a kind with more comes in several. None: always one
    parts: int = 1  # of every pass, one a device that it is spread over
    lanes: int = LANES  # a part's captured rows are filled up to a multiple of this
    held: Sequence[Sequence[TokenItem]] = ()  # [num_batches][prompts] that an edit is to leave alone; or none at all

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, j: int) -> EditTask:
        """The j-th batch, packed. Raises: IndexError past the end, so a plan can be looped over."""
        return EditTask(**{kind: self.batches(j, kind) for kind in KINDS})

    def batches(self, j: int, kind: str) -> tuple[Batch, ...]:
        """The passes over one kind of the j-th batch's prompts, packed; none where it has no such prompts."""
        items = self.items[kind][j]
        cuts = cut_passes(items, self.batch_size, self.room)
        return tuple(
            renumbered(self._pack(kind, [items[m] for m in places], self.beside(j, kind, places is cuts[-1])), places)
            for places in cuts
        )

    def beside(self, j: int, kind: str, last: bool) -> Sequence[TokenItem]:
        """The held prompts that go with a pass: the last one over the prompts to edit takes them all."""
        return self.held[j] if self.held and kind == "edit" and last else ()

    @property
    def room(self) -> int | None:
        """Tokens of a pass, all parts together."""
        return None if self.pass_tokens is None else self.pass_tokens * self.parts

    def _pack(self, kind: str, items: Sequence[TokenItem], held: Sequence[TokenItem]) -> Batch:
        return pack_parts(items, self.batch_size, self.token, self.shapes[kind], self.parts, held=held)

    def passes(self, kind: str) -> list[tuple[int, PackShape]]:
        """(tokens, shape) of every part of every pass over a kind's prompts."""
        shapes = self.shapes[kind]
        return [one for items in _passes(self, kind) for one in measured(items, shapes, self.token, self.parts)]

    def part(self, start: int, stop: int) -> EditPlan:
        """Only the batches from `start` to `stop` (excluded), in the same shapes."""
        items = {kind: batches[start:stop] for kind, batches in self.items.items()}
        part = {"rows": self.rows[start:stop], "drawn": self.drawn[start:stop], "held": self.held[start:stop]}
        return dataclasses.replace(self, items=items, **part)

    def records(self, j: int) -> Sequence[EditRecord]:
        """The records of batch j, in the order drawn."""
        return self.drawn[j]

    def token_items(self) -> Iterator[TokenItem]:
        """All prompts of all kinds, those that are held included."""
        for batches in (*self.items.values(), self.held):
            yield from itertools.chain.from_iterable(batches)

    def order(self, j: int, kind: str) -> Int[np.ndarray, " prompts"]:
        """The prompts of batch j in the published order, micro-batch by micro-batch, row by row.

        `scores[plan.order(j, kind)]` turns scores in the order given into the published list.
        """
        return sorted_order(self.items[kind][j])

    def owners(self, j: int, kind: str) -> Int[np.ndarray, " prompts"]:
        """Which record of batch j (0 .. n_edits - 1) each prompt belongs to."""
        return np.repeat(np.arange(len(self.drawn[j])), [len(record.cues(kind)) for record in self.drawn[j]])


def plan_tasks(
    records: Sequence[EditRecord],
    tokenizer: Tokenizer,
    *,
    n_edits: int,
    num_batches: int | None,
    batch_size: int,
    token: str = "ans",
    seed: int | None = None,
    rows: np.ndarray | None = None,
    max_tokens: int | None = None,
    pass_tokens: int | None = None,
    parts: int = 1,
    lanes: int = LANES,
    can_skip: bool = True,
) -> EditPlan:
    """Draws batches without replacement, tokenises them and plans one shape for each kind.

    Args:
      records: what to draw from.
      tokenizer: a Hugging Face tokenizer.
      n_edits: records of a batch.
      num_batches: batches to draw; None for as many as the records fill. What is left over is dropped.
      batch_size: prompts of a micro-batch.
      token: token rule, see `captured_positions`.
      seed: of the draw; None for file order.
      rows: int [num_batches, n_edits], places in `records`: repeats a recorded draw instead.
      max_tokens: the longest prompt with answer that the model takes.
      pass_tokens: tokens of a part of a pass; a kind of a batch with more comes in several passes. None: always in one.
      parts: of every pass, one a device that it is spread over.
      lanes: what a part's captured rows are filled up to a multiple of.
      can_skip: bad rows can be left out by a flag, which a refusal then names.

    Raises: InputError for too few records, sizes below 1, an unknown token rule, rows that are no such draw, and cues
      that tokenise to nothing or are too long.
    """
    check_token_rule(token)
    if batch_size < 1:
        raise InputError(f"A micro-batch needs at least 1 prompt: set dataset.batch_size, now {batch_size}.")
    rows = draw(records, n_edits, num_batches, seed) if rows is None else _replay(rows, records, n_edits, num_batches)
    drawn = [[records[row] for row in batch] for batch in rows.tolist()]
    items = _tokenized(drawn, tokenizer, max_tokens, can_skip)
    plan = EditPlan(
        rows=rows,
        shapes={},
        batch_size=batch_size,
        token=token,
        drawn=drawn,
        items=items,
        pass_tokens=pass_tokens,
        parts=parts,
        lanes=lanes,
    )
    return share_shapes(plan)[0]


def share_shapes(*plans: EditPlan) -> tuple[EditPlan, ...]:
    """The same plans with shapes that fit all of them, so that training and editing run one compiled program.

    Raises: InputError if their token rules differ.
    """
    rules = {plan.token for plan in plans}
    if len(rules) != 1:
        raise InputError(f"Plans share a shape only under one token rule, not {', '.join(sorted(rules)) or 'none'}.")
    passes = {kind: [one for plan in plans for one in dealt(_passes(plan, kind), plan.parts)] for kind in KINDS}
    shapes = {kind: plan_shapes(passes[kind], *rules, lanes=plans[0].lanes) for kind in KINDS}
    return tuple(dataclasses.replace(plan, shapes=shapes) for plan in plans)


def holding(plan: EditPlan, cues: Sequence[Sequence[Cue]], tokenizer: Tokenizer, max_tokens: int | None) -> EditPlan:
    """The plan with prompts that the edits of each batch are to leave alone; those too long for the model are left out.

    Their shapes are to be planned anew.
    """
    tried = [attempt(list(batch), tokenizer, max_tokens=max_tokens) for batch in cues]
    return dataclasses.replace(plan, held=[[one for one in batch if isinstance(one, TokenItem)] for batch in tried])


def roomy(plan: EditPlan) -> EditPlan:
    """The same plan in shapes that others of like size have too, where plans are made one after the other."""
    passes = {kind: dealt(_passes(plan, kind), plan.parts) for kind in KINDS}
    return dataclasses.replace(plan, shapes={kind: (roomy_shape(passes[kind], plan.token),) for kind in KINDS})


def _passes(plan: EditPlan, kind: str) -> list[list[TokenItem]]:
    """The prompts of every pass of a kind, batch after batch, held ones included."""
    found = []
    for j, items in enumerate(plan.items[kind]):
        cuts = cut_passes(items, plan.batch_size, plan.room)
        found += [[*(items[m] for m in places), *plan.beside(j, kind, places is cuts[-1])] for places in cuts]
    return found


def cut_passes(items: Sequence[TokenItem], micro_batch_size: int, pass_tokens: int | None) -> list[list[int]]:
    """Places of the prompts of each pass: whole micro-batches, in their order, evenly, of at most `pass_tokens`.

    A micro-batch with more is a pass of its own. A batch that fits one pass keeps the order that it was given in; one
    without prompts takes none.
    """
    if not items:
        return []
    if pass_tokens is None or sum(len(item.tokens) for item in items) <= pass_tokens:
        return [list(range(len(items)))]
    order = sorted_order(items).tolist()
    micro_batches = [order[start : start + micro_batch_size] for start in range(0, len(order), micro_batch_size)]
    tokens = [sum(len(items[m].tokens) for m in places) for places in micro_batches]
    return [[m for number in one for m in micro_batches[number]] for one in cut_evenly(tokens, pass_tokens)]


def draw(
    records: Sequence[EditRecord], n_edits: int, num_batches: int | None, seed: int | None
) -> Int[np.ndarray, "num_batches n_edits"]:
    """Which records make up each batch, as `plan_tasks` draws them. Raises: InputError for too few, and a bad seed."""
    wanted = 1 if num_batches is None else num_batches
    if n_edits < 1 or wanted < 1:
        raise InputError(f"{wanted} batches of n_edits={n_edits}: both must be at least 1.")
    if wanted * n_edits > len(records):
        where = f" (the first is {records[0].source})" if records else ""
        raise InputError(
            f"{wanted} x n_edits={n_edits} = {wanted * n_edits} facts are needed, but there are {len(records)}{where}: "
            f"lower dataset.n_edits or num_seq, or give more rows."
        )
    if seed is not None and seed < 0:
        raise InputError(f"A seed is 0 or larger, or None for file order, not {seed}.")
    order = np.arange(len(records)) if seed is None else np.random.default_rng(seed).permutation(len(records))
    count = len(records) // n_edits if num_batches is None else num_batches
    return order[: count * n_edits].reshape(count, n_edits).astype(np.int32)


def _replay(rows: np.ndarray, records: Sequence[EditRecord], n_edits: int, num_batches: int | None) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape != (rows.shape[0] if num_batches is None else num_batches, n_edits):
        raise InputError(f"rows has the shape {rows.shape}, not (num_batches, n_edits) = ({num_batches}, {n_edits}).")
    if not np.issubdtype(rows.dtype, np.integer) or rows.min(initial=0) < 0 or rows.max(initial=-1) >= len(records):
        raise InputError(f"rows must hold whole numbers from 0 to {len(records) - 1}, the records there are.")
    return rows.astype(np.int32)


def _tokenized(
    drawn: Sequence[Sequence[EditRecord]], tokenizer: Tokenizer, max_tokens: int | None, can_skip: bool
) -> dict[str, list[list[TokenItem]]]:
    """All cues of all kinds, tokenised in one go each, batch by batch. Raises: InputError with all that cannot be."""
    found, faults = {}, []
    for kind in KINDS:
        items, bad = tokenize_kind([record for batch in drawn for record in batch], kind, tokenizer, max_tokens)
        given = iter(items)
        sizes = [sum(len(record.cues(kind)) for record in batch) for batch in drawn]
        found[kind] = [list(itertools.islice(given, size)) for size in sizes]
        faults += bad
    refuse(faults, can_skip)
    return found


def tokenize_kind(
    records: Sequence[EditRecord], kind: str, tokenizer: Tokenizer, max_tokens: int | None
) -> tuple[list[TokenItem], list[Fault]]:
    """(the records' cues of a kind that can be tokenised, what is wrong with the others)."""
    owned = [(cue, record.source) for record in records for cue in record.cues(kind)]
    tried = attempt([cue for cue, _ in owned], tokenizer, max_tokens=max_tokens)
    items = [one for one in tried if isinstance(one, TokenItem)]
    bad = [(source, one) for (_, source), one in zip(owned, tried, strict=True) if isinstance(one, RowFault)]
    return items, [Fault(f"{source} ({kind})", str(fault)) for source, fault in bad]
