"""The static description of a language model: sizes and switches, by which the one decoder serves every family."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple


class RopeScaling(NamedTuple):
    """Llama 3.1's stretching of the slow rope frequencies; `linear` (all of them divided) is `low == high == 0`."""

    kind: str  # "linear" or "llama3"
    factor: float
    low: float = 0.0
    high: float = 0.0
    original_length: int = 0


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """Sizes and switches of a decoder; hashable: it picks the compiled program. Widths in numbers of features."""

    family: str
    vocabulary: int
    d: int
    f: int
    h: int
    g: int
    e: int
    num_layers: int
    norm_eps: float
    # positions
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rotary: int = 0  # features of each head that rope turns; 0: all e
    rope_neighbours: bool = False  # feature 2j turns with 2j + 1, else j with j + half
    no_rope: tuple[int, ...] = ()  # layers without rope
    local_theta: float | None = None  # rope_theta of the windowed layers, unscaled; None: that of all
    learned_positions: bool = False  # a table of max_length rows in place of rope
    # attention
    window: int | None = None  # keys that a query of a windowed layer sees, itself included
    windowed: tuple[int, ...] = ()  # those layers
    attention_scale: float | None = None  # of the scores; None: e ** -0.5
    attention_cap: float | None = None  # scores are squeezed into (-cap, cap) by tanh
    logit_cap: float | None = None  # likewise the logits
    attention_bias: bool = False  # on queries, keys, values
    output_bias: bool = False  # on attention's output
    fused_qkv: bool = False  # one linear map for queries, keys and values
    qk_norm: bool = False  # queries and keys are normed, head by head
    # mlp
    gated: bool = True  # down(act(gate x) * up x), else down(act(up x))
    activation: str = "silu"
    mlp_bias: bool = False
    # the stream
    layer_norm: bool = False  # centred, with biases; else root-mean-square
    norm_offset: bool = False  # gains are stored as w - 1
    post_norms: bool = False  # attention's and the mlp's outputs are normed too
    parallel: bool = False  # attention and mlp read the same normed input
    embed_scale: float = 1.0
    tied_head: bool = False
    head_bias: bool = False
    max_length: int = 2048
    eos_ids: tuple[int, ...] = ()
    dtype: str = "float32"
    remat: bool = False  # a gradient computes each layer again on its way back: less memory, more time

    @property
    def turned(self) -> int:
        """Features of each head that rope turns."""
        return self.rotary or self.e

    @property
    def scale(self) -> float:
        """What attention scores are multiplied with."""
        return self.e**-0.5 if self.attention_scale is None else self.attention_scale


def inverse_frequencies(config: LMConfig, local: bool = False) -> list[float]:
    """Rope's angle per position for each pair of features, in radians, after the family's scaling.

    `local`: those of the windowed layers.
    """
    own = local and config.local_theta is not None
    theta = config.local_theta if own and config.local_theta is not None else config.rope_theta
    plain = [theta ** (-2 * j / config.turned) for j in range(config.turned // 2)]
    scaling = config.rope_scaling
    if scaling is None or own:
        return plain
    if scaling.kind == "linear":
        return [w / scaling.factor for w in plain]
    return [_llama3_frequency(w, scaling) for w in plain]


def _llama3_frequency(w: float, scaling: RopeScaling) -> float:
    """Slow frequencies are divided by `factor`, fast ones kept, those between blended (Llama 3.1)."""
    turns = scaling.original_length * w / (2 * math.pi)  # full turns over the length the model was trained on
    if turns > scaling.high:
        return w
    if turns < scaling.low:
        return w / scaling.factor
    keep = (turns - scaling.low) / (scaling.high - scaling.low)
    return keep * w + (1 - keep) * w / scaling.factor
