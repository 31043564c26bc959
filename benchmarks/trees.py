"""The leaves of a network's parameters by name."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def by_path(theta: Any) -> dict[str, np.ndarray]:
    """Path -> array, such as `blocks.0.A`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(theta)
    }
