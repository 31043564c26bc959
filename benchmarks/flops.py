"""Useful FLOP: the multiply-adds that the method needs on tokens that are no padding, counted from sizes alone.

A multiply-add is two operations. Sums, norms and activations are not counted: products are nearly all of the work. The
backward pass of a product that stays as it is costs one more product (the gradient of its input), that of an edited one
two where the weight's own gradient is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from emsedit_jax.edit.hypernet import NetSpec
from emsedit_jax.edit.shift import ShiftRule
from emsedit_jax.edit.solve import chooses_dual
from emsedit_jax.lm import decoder
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.params import abstract
from emsedit_jax.types import Batch, Sites

BEFORE = ("attn.q", "attn.k", "attn.v", "attn.qkv")  # a layer's maps before its attention, and after it
AFTER = ("attn.o", "mlp.gate", "mlp.up", "mlp.down")


class Prompts:
    """How long the prompts of a pass are, and how many of their last positions predict an answer's token."""

    def __init__(self, batches: Iterable[Batch]):
        lengths: list[int] = []
        answers: list[int] = []
        self.rows = 0  # captured
        for batch in batches:
            segments_bt = np.asarray(batch.segments_bt)
            predicts_bt = np.zeros(segments_bt.size, bool)
            predicts_bt[np.asarray(batch.answer_at_a)[np.asarray(batch.labels_a) >= 0]] = True
            for row, predicts in zip(segments_bt, predicts_bt.reshape(segments_bt.shape), strict=True):
                width = int(row.max(initial=0)) + 1
                lengths += np.bincount(row, minlength=width)[1:].tolist()
                answers += np.bincount(row[predicts], minlength=width)[1:].tolist()
            self.rows += int(np.sum(np.asarray(batch.captured_n)))
        self.tokens, self.answers = sum(lengths), sum(answers)
        every = [length * (length + 1) // 2 for length in lengths]
        before = [(length - count) * (length - count + 1) // 2 for length, count in zip(lengths, answers, strict=True)]
        self.pairs = sum(every)  # (query, key) of causal attention in full layers
        self.answer_pairs = self.pairs - sum(before)  # those whose query is at an answer's position


def _maps(config: LMConfig, modules: Sequence[str]) -> int:
    """Multiply-adds of a token in some of a layer's linear maps."""
    layer = abstract(config)["layers"][0]
    shapes = {f"{part}.{name}": leaf["w"].shape for part in ("attn", "mlp") for name, leaf in layer[part].items()}
    return sum(k * v for module, (k, v) in shapes.items() if module in modules)


def layer(config: LMConfig, prompts: Prompts, rows_after: int | None = None) -> float:
    """One layer, forward; what comes after its attention on so many rows only, where that is all that is needed."""
    after = prompts.tokens if rows_after is None else rows_after
    maps = prompts.tokens * _maps(config, BEFORE) + after * _maps(config, AFTER)
    return 2.0 * maps + 4.0 * config.h * config.e * prompts.pairs


def head(config: LMConfig, prompts: Prompts) -> float:
    """Logits of the answers' positions, forward; backward costs as much again."""
    return 2.0 * prompts.answers * config.d * config.vocabulary


def prefix(config: LMConfig, sites: Sites, prompts: Prompts) -> float:
    """The layers below the edits."""
    return decoder.lowest_layer(sites) * layer(config, prompts)


def scoring(config: LMConfig, sites: Sites, prompts: Prompts) -> float:
    """The layers from the lowest edit on, the last one's wide maps for the answers only, and the answers' logits."""
    whole = config.num_layers - decoder.lowest_layer(sites) - 1
    return whole * layer(config, prompts) + layer(config, prompts, prompts.answers) + head(config, prompts)


def capture(config: LMConfig, sites: Sites, prompts: Prompts) -> float:
    """`scoring`, and the way back to the outputs of the lowest sites, through the answers' positions: none is later."""
    back = _back(config, sites, prompts, prompts.answers, prompts.answer_pairs)
    return scoring(config, sites, prompts) + back


def weight_gradient(config: LMConfig, sites: Sites, prompts: Prompts) -> float:
    """`scoring`, the way back through all positions, and the gradients of the sites' weights."""
    weights = 0
    for group in sites:
        for at, module in zip(group.layers, group.modules, strict=True):
            trimmed = at == config.num_layers - 1 and module in AFTER
            weights += (prompts.answers if trimmed else prompts.tokens) * group.k * group.v
    back = _back(config, sites, prompts, prompts.tokens, prompts.pairs)
    return scoring(config, sites, prompts) + back + 2.0 * weights


def locality(config: LMConfig, sites: Sites, prompts: Prompts) -> float:
    """`weight_gradient`, and the forward pass of the reference."""
    return weight_gradient(config, sites, prompts) + scoring(config, sites, prompts)


def _back(config: LMConfig, sites: Sites, prompts: Prompts, rows: int, pairs: int) -> float:
    """From the loss to the outputs of the lowest sites, through so many rows and pairs of attention."""
    low, last = decoder.lowest_layer(sites), config.num_layers - 1
    total = head(config, prompts)
    attention = 8.0 * config.h * config.e * pairs  # its two products have two gradients each
    for at in range(low + 1, last + 1):
        after = prompts.answers if at == last else rows
        total += 2.0 * (rows * _maps(config, BEFORE) + after * _maps(config, AFTER)) + attention
    modules = {module for group in sites for at, module in zip(group.layers, group.modules, strict=True) if at == low}
    passed = {"mlp.down"} if {"mlp.up", "mlp.gate"} & modules else set()
    heads = set(BEFORE) & modules
    if heads or "attn.o" in modules:
        passed |= set() if config.parallel else {"mlp.up", "mlp.gate", "mlp.down"}
        passed |= {"attn.o"} if heads else set()
    total += attention if heads else 0.0
    return total + 2.0 * (prompts.answers if low == last else rows) * _maps(config, sorted(passed))


# ---------------------------------------------------------------------------------------------- shift


def shift(sites: Sites, rule: ShiftRule, spec: NetSpec, rows: int) -> float:
    """Network and solve of one edit step, forward."""
    return sum(
        len(group.layers) * (_network(group.k + group.v, spec, rows) + _solve(rule, group.k, group.v, rows))
        for group in sites
    )


def pull_back(sites: Sites, rule: ShiftRule, spec: NetSpec, rows: int) -> float:
    """From the weights' gradient to the network's: the solve's adjoint, and twice the network but for its input."""
    total = 0.0
    for group in sites:
        width = group.k + group.v
        adjoint = 2.0 * rows * group.k * group.v
        if rule.ridge is not None:
            m = min(rows, group.k)
            adjoint += 2.0 * m * m * group.v
        network = 2 * _network(width, spec, rows) - (2.0 * rows * width * spec.rank if spec.n_blocks else 0.0)
        total += len(group.layers) * (adjoint + network)
    return total


def solve_of_sums(sites: Sites, rule: ShiftRule) -> float:
    """That part of a shift, or of its pull-back, which is left when all rows are summed up."""
    if rule.ridge is None:
        return 0.0
    return sum(len(group.layers) * (group.k**3 / 3 + 2.0 * group.k**2 * group.v) for group in sites)


def _network(width: int, spec: NetSpec, rows: int) -> float:
    return 4.0 * rows * width * spec.rank * spec.n_blocks


def _solve(rule: ShiftRule, k: int, v: int, n: int) -> float:
    if rule.ridge is None:
        return 2.0 * n * k * v
    if chooses_dual(n, k):
        return dual(n, k, v)
    return primal(n, k, v)


def dual(n: int, k: int, v: int) -> float:
    """Gram matrix (its half), Cholesky factor, two triangular solves, product with the keys."""
    return n * n * k + n**3 / 3 + 2.0 * n * n * v + 2.0 * n * k * v


def primal(n: int, k: int, v: int) -> float:
    """Gram matrix (its half), X^T Y, Cholesky factor, two triangular solves."""
    return n * k * k + 2.0 * n * k * v + k**3 / 3 + 2.0 * k * k * v
