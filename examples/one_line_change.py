"""A training loop written by hand, balanced by changing one line.

Two tasks share a trunk: a regression whose loss is in the thousands, and a classification whose
loss is near one. Their pulls are hundreds of times apart, so the limit of 64 would leave part of
that: the diagnosis says so, with the line that is used here.
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
balancer = gaba.Balancer(tasks=["rul", "health"], shared=trunk, limit=1_000)

inputs = torch.randn(64, 14)
rul = torch.rand(64) * 125
health = torch.bucketize(rul, torch.tensor([30.0, 80.0]))

seen = {}
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
    if step.measured:  # in the steps between, norms are not known
        seen = step.asdict()
    if i % 10 == 9:
        norms, multipliers = seen["norms"], seen["multipliers"]
        print(
            f"step {seen['step']:2}: norms {norms['rul']:8.2f} / {norms['health']:.3f}, "
            f"multipliers {multipliers['rul']:.4f} / {multipliers['health']:.1f}, "
            f"contributions {seen['imbalance']:.2f} times apart"
        )
