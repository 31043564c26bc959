"""Edit sites: module-name patterns to the static table of linear maps that an editor changes, grouped by shape."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from emsedit_jax.errors import InputError, near
from emsedit_jax.lm.config import LMConfig
from emsedit_jax.lm.hf import published_modules
from emsedit_jax.lm.params import SPLIT, module_spec
from emsedit_jax.types import SiteGroup, Sites

BRACES = re.compile(r"\{([^{}]*)\}")


def expand(pattern: str) -> list[str]:
    """Braces written out: a range, or a list; several multiply, the first one slowest.

    >>> expand("model.layers.{11..13}.mlp.gate_proj")
    ['model.layers.11.mlp.gate_proj', 'model.layers.12.mlp.gate_proj', 'model.layers.13.mlp.gate_proj']
    >>> expand("h.{1,2}.{fc_in,fc_out}")
    ['h.1.fc_in', 'h.1.fc_out', 'h.2.fc_in', 'h.2.fc_out']

    Raises InputError for a range that is empty or too long.
    """
    found = BRACES.search(pattern)
    if not found:
        return [pattern]
    inside = found.group(1)
    span = re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", inside)
    if span:
        low, high = int(span[1]), int(span[2])
        if high < low or high - low > 10_000:
            fault = f"in {pattern!r} the range {{{inside}}} is empty or too long; write such as {{11..15}}"
            raise InputError(f"--config.model.edit_modules: {fault}.")
        choices = [str(number) for number in range(low, high + 1)]
    else:
        choices = [choice.strip() for choice in inside.split(",")]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [full for choice in choices for full in expand(head + choice + tail)]


def resolve(config: LMConfig, patterns: Sequence[str]) -> Sites:
    """The sites named by `patterns` (braces and `*`, `?`), grouped by shape in order of first appearance.

    Inside a group sites keep the order of the patterns: a site's place is its row in the hypernetwork's tables.

    Examples:
      >>> llama = LMConfig("llama", vocabulary=400, d=48, f=96, h=4, g=2, e=12, num_layers=5, norm_eps=1e-5)
      >>> [(group.k, group.v, group.layers) for group in resolve(llama, ["*.{3..4}.mlp.up_proj", "*.4.mlp.down_proj"])]
      [(48, 96, (3, 4)), (96, 48, (4,))]

    Raises InputError for a pattern that matches nothing (near names suggested), and for a site named twice.
    """
    known = published_modules(config)
    names: list[str] = []
    for pattern in patterns:
        for single in expand(pattern):
            hits = [single] if single in known else [name for name in known if fnmatch.fnmatchcase(name, single)]
            if not hits:
                hint = near(single, known) or f" Its linear layers have names like {next(iter(known))!r}."
                fault = f"{single!r} is no linear layer of this {config.family} model"
                raise InputError(f"--config.model.edit_modules: {fault}.{hint}")
            names += hits
    if not names:
        raise InputError("no edit sites are given; set --config.model.edit_modules.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"edit site {twice[0]!r} is named twice in --config.model.edit_modules.")
    return _group(config, {name: known[name] for name in names})


def _group(config: LMConfig, chosen: dict[str, tuple[int, str]]) -> Sites:
    by_shape: dict[tuple[int, int], list[str]] = {}
    for name, (_, module) in chosen.items():
        k, v = module_spec(config, module).shape
        by_shape.setdefault((k, v), []).append(name)
    return tuple(
        SiteGroup(
            k,
            v,
            tuple(chosen[n][0] for n in names),
            tuple(chosen[n][1] for n in names),
            tuple(names),
            "k" if all(module_spec(config, chosen[n][1]).axes[0] in SPLIT for n in names) else "v",
        )
        for (k, v), names in by_shape.items()
    )


def site_names(sites: Sites) -> list[str]:
    """Published names of all sites, group after group."""
    return [name for group in sites for name in group.names]
