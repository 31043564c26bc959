"""The legend of letters, and the frozen pytrees that pass between rooms.

Letters, in every shape suffix, comment and einsum of the package (`keys_snk` has shape [s, n, k]):

    b  packed rows of a batch   t  tokens of a row        d  model width       f  ffn width
    h  query heads              g  key/value heads        e  head width        l  layers
    s  edit sites of one shape  n  captured token rows    a  answer token rows
    k  key width (site input)   v  value width (site output)                   r  hypernetwork rank
    i  edit step                p  other token rows       m  all token rows: those of p, then those of a
    V  vocabulary

"METHODS section 3" in a docstring is a section of `docs/METHODS.md`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, dataclass_transform

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

AnyArray = Array | np.ndarray  # batches are packed on the host
LANES = 8  # rows and columns of programs are multiples of this: few shapes, and whole vector registers
NO_LABEL = -100  # label of a row that predicts no answer's token; no loss, no score


def static(**kwargs):
    """Marks a dataclass field as part of the tree's structure (hashable, compared, never traced)."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static,))
def pytree(cls):
    """A frozen dataclass registered as a pytree.

    Unflattening skips `__init__`, so that run-time shape checks apply to values a person built and not to the shape
    structs, specs and `None`s that tree functions put in their place.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(obj):
        children = tuple((jax.tree_util.GetAttrKey(name), getattr(obj, name)) for name in data)
        return children, tuple(getattr(obj, name) for name in meta)

    def flatten(obj):
        return tuple(getattr(obj, name) for name in data), tuple(getattr(obj, name) for name in meta)

    def unflatten(aux, children):
        obj = object.__new__(cls)
        for name, value in (*zip(data, children, strict=True), *zip(meta, aux, strict=True)):
            object.__setattr__(obj, name, value)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten_func=flatten)
    return cls


class SiteGroup(NamedTuple):
    """The edit sites that share a shape, hence a hypernetwork and a normaliser; s is the place in `layers`/`modules`.

    Static (hashable): it picks the compiled program.
    """

    k: int  # key width: inputs of each site
    v: int  # value width: outputs of each site
    layers: tuple[int, ...]  # [s] layer of each site
    modules: tuple[str, ...]  # [s] "mlp.gate", ...: the path of the linear map inside a layer's params
    names: tuple[str, ...]  # [s] "model.layers.11.mlp.gate_proj", ...: the published name
    wide: str = "v"  # "k" or "v": along which the sites' weights lie over several devices

    @property
    def shape_key(self) -> str:
        """The group's name in files: `"<k>x<v>"`."""
        return f"{self.k}x{self.v}"


Sites = tuple[SiteGroup, ...]


@pytree
class Batch:
    """Prompts with their answers, packed: several prompts share a row and are kept apart by segment ids.

    Over several devices it is in parts, one after the other along the first axis of every array; indices then count
    in a part's own rectangle.

    Answer rows are the positions whose next token belongs to the answer. Rows of one kind come micro-batch after
    micro-batch, prompt after prompt, left to right; behind the answer rows come other tokens that `p` has no room for,
    and unused rows at the end are padding.
    """

    tokens_bt: Int[AnyArray, "b t"]  # 0 where unused
    positions_bt: Int[AnyArray, "b t"]  # position inside the prompt, from 0
    segments_bt: Int[AnyArray, "b t"]  # 1, 2, ... inside a row; 0 where unused
    prompt_at_p: Int[AnyArray, " p"]  # index into the flattened [b * t] of other tokens; b * t where unused
    answer_at_a: Int[AnyArray, " a"]  # likewise of answer rows, then of other tokens that p has no room for
    labels_a: Int[AnyArray, " a"]  # the token to be predicted there; NO_LABEL where there is none
    weights_a: Float[AnyArray, " a"]  # 1 / (answer rows of the prompt's micro-batch), METHODS section 1; else 0
    item_a: Int[AnyArray, " a"]  # which prompt of the batch (its place in the order it was given in); else -1
    capture_at_n: Int[AnyArray, " n"]  # index into [b * t] of the rows whose keys and gradients are taken; b * t unused
    captured_n: Bool[AnyArray, " n"]  # False where unused
    # the token that each label has to beat (METHODS section 7), NO_LABEL where that is every other; None: everywhere
    versus_a: Int[AnyArray, " a"] | None = None
    only_answers: bool = static(default=False)  # every captured row is an answer row
    parts: int = static(default=1)


@pytree
class EditTask:
    """One edit batch: the facts to write, the same facts asked otherwise, and facts that must not move.

    Each kind comes in one pass, in several of one shape where it is too large for one, or in none.
    """

    edit: tuple[Batch, ...]
    equiv: tuple[Batch, ...]
    unrel: tuple[Batch, ...]


@pytree
class Trace:
    """What capture takes from the model at the edit sites, one entry per `SiteGroup` (METHODS section 1)."""

    keys: tuple[Float[AnyArray, "_s _n _k"], ...]  # site inputs; zero in unused rows
    grads: tuple[Float[AnyArray, "_s _n _v"], ...]  # d loss / d site output; zero in unused rows
    captured_n: Bool[AnyArray, " n"]
    loss: Float[AnyArray, ""]  # nats, micro-batch means summed
    ce_a: Float[AnyArray, " a"]  # nats, per answer row, unweighted; zero where unused


@pytree
class NormStats:
    """Running statistics of the rows [key; gradient] of one group and network (METHODS section 2), c = k + v."""

    count: Int[Array, ""]  # rows seen
    mean_c: Float[Array, " c"]
    var_c: Float[Array, " c"]  # population variance


Deltas = tuple[Float[Array, "_s _k _v"], ...]  # float32, one per SiteGroup: an edit. Dropping it is un-editing.
BySite = tuple[tuple[Float[Array, "_k _v"], ...], ...]  # the same, every site an array of its own
Probes = tuple[tuple[Float[Array, "_n _v"], ...], ...]  # likewise, of a capture: zeros that its gradient is taken at
Stats = tuple[NormStats, ...]  # one per SiteGroup
Theta = tuple[Any, ...]  # one network's parameters, a dict per SiteGroup; None where an editor has no network


@pytree
class MetaState:
    """All that meta-training changes: networks, normalisers, the optimiser and the gradient accumulated so far."""

    thetas: tuple[Theta, ...]  # one a step, or one that all steps share
    stats: tuple[Stats, ...]  # likewise
    opt_state: object
    grads: tuple[Theta, ...]  # sum since the optimiser's last step, clipped as the editor has it
