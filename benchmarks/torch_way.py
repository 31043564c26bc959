"""EMSEdit in PyTorch the straightforward way: hooks, micro-batches, logits everywhere, K x K systems.

What `benchmarks.torch_baseline` times ours against. Written from METHODS; needs the extra `parity`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.trees import by_path
from emsedit_jax.data.packing import sorted_order
from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.errors import InputError
from emsedit_jax.types import NO_LABEL, Sites, Theta

INNER_ROWS = 128  # rows that a network sees at once, as the published program has it
EPSILON = float(np.finfo(np.float32).eps)


class MicroBatch(NamedTuple):
    """Prompts padded on the right to the longest; all [prompts, tokens]."""

    tokens: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor  # NO_LABEL where nothing is to be predicted


class Captured(NamedTuple):
    """Rows of every site, by name."""

    keys: dict[str, torch.Tensor]
    grads: dict[str, torch.Tensor]


class Stats:
    """Running mean and variance of the rows of all sites of one shape (METHODS section 2)."""

    def __init__(self) -> None:
        self.count, self.mean, self.var = 0, torch.zeros(()), torch.zeros(())

    def update(self, rows: torch.Tensor) -> None:
        mean, new = rows.mean(0), len(rows)
        total = self.count + new
        step = mean - self.mean
        m2 = self.var * self.count + (rows - mean).square().sum(0) + step.square() * (self.count * new / total)
        self.count, self.mean, self.var = total, self.mean + step * (new / total), m2 / total

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        std = (self.var * self.count / (self.count - 1 + 1e-8)).sqrt()
        return (rows - self.mean) / (std + EPSILON)


class Shifted(NamedTuple):
    """One edit step of every site, by name, with what its gradient takes."""

    normed: dict[str, torch.Tensor]
    keys: dict[str, torch.Tensor]
    shifts: dict[str, torch.Tensor]  # [K, V]


class Way:
    """A model with its edits in place, two or more networks and their statistics."""

    def __init__(self, folder: Path, sites: Sites, thetas: Sequence[Theta], device: str, dtype: str):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
        self.device, self.sites = device, sites
        self.model = model.to(device).eval().requires_grad_(False)
        self.modules = {name: self.model.get_submodule(name) for group in sites for name in group.names}
        for name, module in self.modules.items():
            if not isinstance(module, torch.nn.Linear):
                raise InputError(f"{name} is a {type(module).__name__}; only torch.nn.Linear maps are edited here.")
            module.weight.requires_grad_(True)
        self.original = {name: module.weight.detach().clone() for name, module in self.modules.items()}
        self.thetas = [[_parameters(theta, device) for theta in network] for network in thetas]
        self.forget()

    def forget(self) -> None:
        """Back to the original weights and to networks that have seen nothing."""
        self.restore()
        self.stats = [[Stats() for _ in self.sites] for _ in self.thetas]

    def restore(self) -> None:
        """Back to the original weights."""
        with torch.no_grad():
            for name, module in self.modules.items():
                module.weight.copy_(self.original[name])

    def micro_batches(self, items: Sequence[TokenItem], size: int) -> list[MicroBatch]:
        """By length, longest first."""
        ranked = [items[m] for m in sorted_order(items)]
        return [self._padded(ranked[start : start + size]) for start in range(0, len(ranked), size)]

    def _padded(self, items: Sequence[TokenItem]) -> MicroBatch:
        width = max(len(item.tokens) for item in items)
        tokens, mask = np.zeros((2, len(items), width), np.int64)
        labels = np.full((len(items), width), NO_LABEL, np.int64)
        for row, item in enumerate(items):
            tokens[row, : len(item.tokens)], mask[row, : len(item.tokens)] = item.tokens, 1
            labels[row, item.answer_start : len(item.tokens)] = item.labels
        return MicroBatch(*(torch.from_numpy(one).to(self.device) for one in (tokens, mask, labels)))

    def _loss(self, batch: MicroBatch) -> torch.Tensor:
        logits = self.model(batch.tokens, attention_mask=batch.mask, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch.labels.flatten(), ignore_index=NO_LABEL
        )

    def capture(self, batches: Sequence[MicroBatch]) -> Captured:
        """Keys and value gradients at the answers' rows, by hooks."""
        keys: dict[str, list] = {name: [] for name in self.modules}
        grads: dict[str, list] = {name: [] for name in self.modules}
        rows: Any = None
        handles = []
        for name, module in self.modules.items():
            handles.append(
                module.register_forward_hook(lambda _, x, y, name=name: keys[name].append(x[0].detach()[rows].float()))
            )
            handles.append(
                module.register_full_backward_hook(
                    lambda _, gx, gy, name=name: grads[name].append(gy[0].detach()[rows].float())
                )
            )
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that the lowest site's input has none
            for batch in batches:
                rows = batch.labels != NO_LABEL
                self._loss(batch).backward()
        for handle in handles:
            handle.remove()
        self.model.zero_grad(set_to_none=True)
        return Captured(*({name: torch.cat(parts) for name, parts in found.items()} for found in (keys, grads)))

    @torch.no_grad()
    def shift(self, i: int, captured: Captured) -> Shifted:
        """One step's weight changes (METHODS sections 3 and 4), by a K x K system each."""
        found = Shifted({}, captured.keys, {})
        for group, theta, stats in zip(self.sites, self.thetas[i], self.stats[i], strict=True):
            rows = {name: torch.cat([captured.keys[name], captured.grads[name]], -1) for name in group.names}
            stats.update(torch.cat(list(rows.values())))
            for s, name in enumerate(group.names):
                found.normed[name] = stats.apply(rows[name])
                keys = captured.keys[name]
                pieces = zip(found.normed[name].split(INNER_ROWS), keys.split(INNER_ROWS), strict=True)
                values = torch.cat([_differences(theta, s, group.k, *piece) for piece in pieces])
                found.shifts[name] = torch.linalg.solve(_system(theta, s, keys), keys.T @ values)
        return found

    @torch.no_grad()
    def add(self, shifted: Shifted) -> None:
        """Writes the changes into the weights."""
        for name, module in self.modules.items():
            module.weight += shifted.shifts[name].T.to(module.weight.dtype)

    def edit(self, batches: Sequence[MicroBatch]) -> list[Shifted]:
        """All steps of one batch."""
        found = []
        for i in range(len(self.thetas)):
            found.append(self.shift(i, self.capture(batches)))
            self.add(found[-1])
        return found

    def weight_gradient(self, batches: Sequence[MicroBatch], drift_coef: float) -> dict[str, torch.Tensor]:
        """Gradient of the meta-loss by site, [K, V]."""
        for batch in batches:
            self._loss(batch).backward()
        found = {}
        for name, module in self.modules.items():
            drift = (module.weight.detach() - self.original[name]).float()
            found[name] = (module.weight.grad.float() + 2 * drift_coef * drift).T
        self.model.zero_grad(set_to_none=True)
        return found

    def pull_back(self, i: int, shifted: Shifted, gradient: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """The gradient of network i's parameters, a dict a shape (METHODS section 6)."""
        for group, theta in zip(self.sites, self.thetas[i], strict=True):
            for s, name in enumerate(group.names):
                keys = shifted.keys[name]
                spread = torch.linalg.solve(_system(theta, s, keys), gradient[name])
                toward = keys @ spread
                with torch.no_grad():
                    own = torch.zeros_like(theta["lamda"])
                    own[s] = -theta["lamda"][s].exp() * (spread * shifted.shifts[name]).sum()
                (theta["lamda"] * own).sum().backward()
                pieces = (one.split(INNER_ROWS) for one in (shifted.normed[name], keys, toward))
                for normed, key, wanted in zip(*pieces, strict=True):
                    _differences(theta, s, group.k, normed, key).backward(wanted)
        found = [{path: cast(torch.Tensor, one.grad) for path, one in theta.items()} for theta in self.thetas[i]]
        for theta in self.thetas[i]:
            for one in theta.values():
                one.grad = None
        return found

    @torch.no_grad()
    def score(self, batches: Sequence[MicroBatch]) -> list[float]:
        """Share of right answer tokens of each prompt."""
        shares = []
        for batch in batches:
            logits = self.model(batch.tokens, attention_mask=batch.mask, use_cache=False).logits
            used = batch.labels != NO_LABEL
            right = (logits.argmax(-1) == batch.labels) & used
            shares += (right.sum(1) / used.sum(1)).tolist()
        return shares


def clip(total: list[dict[str, torch.Tensor]], bound: float) -> None:
    """Scales the gradients of all networks, in place, to a norm of at most `bound`."""
    norm = torch.stack([one.norm() for theta in total for one in theta.values()]).norm()
    for theta in total:
        for one in theta.values():
            one *= (bound / (norm + 1e-6)).clamp(max=1.0)


def _parameters(theta: Any, device: str) -> dict[str, torch.Tensor]:
    """A network's parameters by path, "blocks.0.A"."""
    return {path: torch.tensor(one, device=device, requires_grad=True) for path, one in by_path(theta).items()}


def _differences(theta: dict, s: int, k: int, normed: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Value differences `-eta (k . k~) g~` of one site's rows; relu's derivative at 0 is 1."""
    z, block = normed, 0
    while f"blocks.{block}.A" in theta:
        A, B, bias, scale, shift = (theta[f"blocks.{block}.{name}"] for name in ("A", "B", "bias", "scale", "shift"))
        u = z @ A @ B + bias
        z = scale[s] * torch.where(u >= 0, u, 0.0) + shift[s] + z
        block += 1
    return -theta["lr"][s] * (keys * z[:, :k]).sum(-1, keepdim=True) * z[:, k:]


def _system(theta: dict, s: int, keys: torch.Tensor) -> torch.Tensor:
    ridge = theta["lamda"][s].detach().exp()
    return keys.T @ keys + ridge * torch.eye(keys.shape[1], device=keys.device)
