"""What the SmolLM2-135M configs share: each editor's initial eta.

This model's keys are shorter than those of the models that the published etas were chosen for. EMSEdit's and
UltraEdit's were chosen on zsRE's training rows: 0 to 99 to train on, 200 to 299 and 300 to 399 to edit and score, best
mean of the three scores. The others are of the same size and were not searched for, which
`python -m benchmarks.editors` does.
"""

from __future__ import annotations

ETA = {  # (editor, edit steps) -> initial eta
    ("emsedit", 2): 3e-4,
    ("rledit", 1): 1e-3,
    ("rledit", 2): 3e-4,
    ("malmen", 1): 1e-3,
    ("malmen", 2): 3e-4,
    ("mend", 1): 1e-4,
    ("ultraedit", 1): 1e-4,
    ("ultraedit", 2): 1e-4,
}


def eta(editor: str, iters: int) -> float:
    """The eta chosen for so many steps, or for the nearest number of them."""
    known = [steps for name, steps in ETA if name == editor]
    return ETA[editor, min(known, key=lambda steps: abs(steps - iters))]
