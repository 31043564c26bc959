"""What accelerators can do at best, as their makers publish it: dense products without sparsity, in TFLOP/s."""

from __future__ import annotations

from typing import NamedTuple


class Peak(NamedTuple):
    """By dtype of the product's operands; float32 without the shorter formats' units (no TF32)."""

    bfloat16: float
    float32: float | None  # None: made up of several shorter products, not published


PEAKS = {  # start of jax's device_kind, longer ones first where one begins another
    "NVIDIA H100 PCIe": Peak(756, 51),
    "NVIDIA H100": Peak(989, 67),
    "NVIDIA H200": Peak(989, 67),
    "NVIDIA A100": Peak(312, 19.5),
    "NVIDIA L40S": Peak(362, 91.6),
    "NVIDIA L4": Peak(121, 30.3),
    "NVIDIA GeForce RTX 4090": Peak(165, 82.6),
    "TPU v4": Peak(275, None),
    "TPU v5 lite": Peak(197, None),
    "TPU v5p": Peak(459, None),
    "TPU v5": Peak(459, None),
    "TPU v6 lite": Peak(918, None),
}


def peak(device_kind: str) -> Peak | None:
    """The published peak of a device; None where it is not in the table, as every CPU."""
    return next((found for kind, found in PEAKS.items() if device_kind.startswith(kind)), None)
