"""How recorded and own numbers are compared: relative Frobenius norm, all differences of a stage in one message."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

STAGE = 1e-4  # a stage fed with recorded inputs
SCALAR = 1e-3  # the same for a site's scalars, such as lamda
END = 2e-3  # end to end: shifts, logits, final weights
END_GRADIENT = 3e-2  # end to end: gradients of the networks

Pairs = Iterable[tuple[str, object, object]]  # (what, ours, recorded)


def relative(ours: object, recorded: object) -> float:
    """||ours - recorded|| / ||recorded||; infinite where the recorded array is zero and ours is not."""
    a, b = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if a.shape != b.shape:
        raise AssertionError(f"shapes differ: ours {a.shape}, recorded {b.shape}")
    difference, size = np.linalg.norm(a - b), np.linalg.norm(b)
    if not np.isfinite(difference):
        return np.inf
    return float(difference / size) if size else (np.inf if difference else 0.0)


def assert_close(pairs: Pairs, tolerance: float) -> None:
    """Fails with the largest relative differences, unless all are within the tolerance; there must be a pair."""
    errors = [(relative(ours, recorded), what) for what, ours, recorded in pairs]
    assert errors, "nothing was compared"
    beyond = sorted((pair for pair in errors if not pair[0] <= tolerance), reverse=True)
    listed = "\n".join(f"  {error:.2e}  {what}" for error, what in beyond[:12])
    assert not beyond, f"{len(beyond)} of {len(errors)} arrays differ by more than {tolerance:g}:\n{listed}"


def assert_theta_close(pairs: Pairs, tolerance: float, scalar_tolerance: float) -> None:
    """The same for a network's parameters or gradients; the sites' scalars have a tolerance of their own."""
    pairs = list(pairs)
    scalars = [pair for pair in pairs if pair[0].endswith(("/lr", "/lamda"))]
    assert_close((pair for pair in pairs if not pair[0].endswith(("/lr", "/lamda"))), tolerance)
    assert_close(scalars, scalar_tolerance)
