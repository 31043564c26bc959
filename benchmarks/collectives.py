"""What goes between devices, read from a compiled program's text.

Counted is what each device sends where a group of g of them passes an array of N bytes round in a ring: (g - 1) / g N
for an all-gather (N: the array that comes of it), a reduce-scatter (N: the array that goes in) and an all-to-all, twice
that for an all-reduce, which is both of the former; N for a permutation. Which way a device's compiler takes is another
matter. What a loop repeats is counted as often as it runs; of branches, each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
ROUNDS = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}  # of a ring
KINDS = (*ROUNDS, "collective-permute")


class Line(NamedTuple):
    """An operation of a module's text."""

    name: str
    shape: str
    op: str
    given: str  # name of the first operand
    text: str  # all of it


def sent(text: str) -> dict[str, dict[str, float]]:
    """Kind -> how many there are, and MB that each device sends."""
    bodies, entry = _computations(text)
    devices = re.search(r"num_partitions=(\d+)", text)
    found: dict[str, list[float]] = {kind: [0, 0.0] for kind in KINDS}
    for kind, size, times in _walk(bodies, entry, 1, int(devices[1]) if devices else 1):
        found[kind][0] += times
        found[kind][1] += times * size / 1e6
    return {kind: {"count": count, "mb": round(mb, 2)} for kind, (count, mb) in found.items() if count}


def _computations(text: str) -> tuple[Mapping[str, list[Line]], str]:
    """(operations of each computation of an HLO module, the name of the one where it begins)."""
    bodies: dict[str, list[Line]] = {}
    name = entry = ""
    for line in text.splitlines():
        begins = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line)
        if begins:
            name = begins[2]
            bodies[name] = []
            entry = name if begins[1] else entry
        elif name and (found := re.match(r"\s*(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w\-]+)\((?:.*?%([\w.\-]+))?", line)):
            bodies[name].append(Line(found[1], found[2], found[3], found[4] or "", line))
    return bodies, entry


def _walk(bodies: Mapping[str, list[Line]], name: str, times: int, devices: int) -> Iterator[tuple[str, float, int]]:
    """(kind, bytes sent, how often) of every collective that a computation comes to."""
    begun: dict[str, Line] = {}
    for line in bodies.get(name, ()):
        begun[line.name] = line
        kind = line.op.removesuffix("-done")
        if kind in KINDS:  # what was started is counted where it is done: its shape is then the result alone
            group = _group(begun.get(line.given, line).text if kind != line.op else line.text, devices)
            yield kind, _sent(kind, _size(line.shape), group), times
        often = re.search(r'known_trip_count"?:\{"n":"(\d+)"', line.text) if line.op == "while" else None
        for inner in _called(line.text):
            yield from _walk(bodies, inner, times * (int(often[1]) if often else 1), devices)


def _called(text: str) -> list[str]:
    """The computations that an operation runs, but for the conditions of loops."""
    branches = re.findall(r"branch_computations=\{([^}]*)\}", text)
    listed = [name.strip().removeprefix("%") for names in branches for name in names.split(",")]
    return listed + re.findall(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)", text)


def _sent(kind: str, result: int, group: int) -> float:
    whole = result * group if kind == "reduce-scatter" else result
    return whole * ROUNDS[kind] * (group - 1) / group if kind in ROUNDS else whole


def _group(text: str, devices: int) -> int:
    """How many devices a collective's groups have, in any of the ways that they are written."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])  # a part of an axis says its own size
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(counted[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return listed[1].count(",") + 1
    return devices


def _size(shape: str) -> int:
    """Bytes of an HLO shape, of all arrays where it is a tuple."""
    return sum(
        BYTES.get(kind, 0) * math.prod(int(length) for length in lengths.split(",") if length)
        for kind, lengths in re.findall(r"(\w+)\[([\d,]*)\]", shape)
    )
