"""A training loop written by hand, balanced by changing one line.

Two tasks share a trunk: a regression whose loss is in the thousands, and a classification whose
loss is near one.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import gaba

torch.manual_seed(0)
trunk = nn.Sequential(nn.Linear(14, 32), nn.ReLU())
rul_head, health_head = nn.Linear(32, 1), nn.Linear(32, 3)
modules = nn.ModuleList([trunk, rul_head, health_head])
optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-3)
balancer = gaba.Balancer(tasks=["rul", "health"], shared=trunk)

inputs = torch.randn(64, 14)
rul = torch.rand(64) * 125
health = torch.bucketize(rul, torch.tensor([30.0, 80.0]))

for i in range(50):
    features = trunk(inputs)
    losses = {
        "rul": functional.mse_loss(rul_head(features).squeeze(-1), rul),
        "health": functional.cross_entropy(health_head(features), health),
    }
    # before: (losses["rul"] + losses["health"]).backward()
    step = balancer.backward(losses)
    optimizer.step()
    optimizer.zero_grad()
    if i % 10 == 0:
        norms, multipliers = step.asdict()["norms"], step.asdict()["multipliers"]
        print(
            f"step {i:2}: norms {norms['rul']:8.2f} / {norms['health']:.3f}, "
            f"multipliers {multipliers['rul']:.4f} / {multipliers['health']:.1f}, "
            f"contributions {float(step.imbalance):.2f} times apart"
        )
