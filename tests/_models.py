"""Small multi-task models for the tests: a shared trunk, one head a task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TwoStage(nn.Module):
    """A shared trunk with a ReLU and one linear head a task, each loss at its own scale."""

    def __init__(self, scales: Sequence[float], seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.scales = tuple(scales)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in scales)
        self.to(dtype)

    @property
    def names(self) -> list[str]:
        return [f"task{k}" for k in range(len(self.scales))]

    def losses(self, x: Tensor) -> dict[str, Tensor | None]:
        z = self.trunk(x)
        return {
            name: scale * (head(z) - k).square().mean()
            for k, (name, scale, head) in enumerate(
                zip(self.names, self.scales, self.heads, strict=True)
            )
        }


def batch(seed: int = 0, n: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs (n, 6) for :class:`TwoStage`."""
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def grads(module: nn.Module) -> dict[str, Tensor]:
    """Every ``.grad`` of ``module`` by name, copied."""
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def task_gradients(model: TwoStage, x: Tensor) -> list[Tensor]:
    """The oracle: each task's whole trunk gradient, by one plain backward pass a task."""
    found = []
    for name in model.names:
        model.zero_grad()
        loss = model.losses(x)[name]
        assert loss is not None
        loss.backward()
        found.append(
            torch.cat([p.grad.flatten() for p in model.trunk.parameters() if p.grad is not None])
        )
    model.zero_grad()
    return found
