"""Batches that do not have every task: leave the loss out, or pass None.

A missing task changes nothing for the others: multipliers are per task, and it keeps its own.
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
    multipliers = step.asdict()["multipliers"]  # None where the task is missing
    print(f"step {i}: " + ", ".join(f"{name} {m or 0:.3f}" for name, m in multipliers.items()))

print("kept for all tasks:", {name: round(m, 3) for name, m in balancer.multipliers.items()})
