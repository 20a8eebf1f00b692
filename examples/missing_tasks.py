"""Batches that do not have every task: leave the loss out, or pass None.

The others share the weight in that step, and the missing task's state is kept as it was.
"""

from __future__ import annotations

import torch
from torch import nn

import gaba

torch.manual_seed(0)
trunk = nn.Linear(8, 16)
heads = nn.ModuleDict({name: nn.Linear(16, 1) for name in ("depth", "normals", "edges")})
balancer = gaba.Balancer(tasks=["depth", "normals", "edges"], shared=trunk)
labelled = [("depth", "normals", "edges"), ("depth", "edges"), ("normals",)]

for i in range(9):
    features = trunk(torch.randn(32, 8))
    losses: dict[str, torch.Tensor | None] = {
        name: heads[name](features).square().mean() if name in labelled[i % 3] else None
        for name in balancer.tasks
    }
    step = balancer.backward(losses)
    weights = step.asdict()["weights"]
    print(f"step {i}: " + ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))

print("kept for all tasks:", {name: round(weight, 3) for name, weight in balancer.weights.items()})
