"""A loop with Accelerate: accumulation, a checkpoint, and what goes to the trackers."""

from __future__ import annotations

import tempfile

import torch
from accelerate import Accelerator
from torch import nn

import gaba
from gaba.integrations.accelerate import AcceleratedBalancer

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
trunk, heads = nn.Linear(6, 8), nn.ModuleList([nn.Linear(8, 1), nn.Linear(8, 1)])
model = nn.ModuleDict({"trunk": trunk, "heads": heads})
balancer = gaba.Balancer(tasks=["loud", "quiet"], shared=trunk, accumulate=2)
balanced = AcceleratedBalancer(accelerator, balancer)
model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=1e-2))


def losses_of(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    loud, quiet = (head(torch.tanh(trunk(inputs))) for head in heads)
    return {"loud": 30 * (loud - 1).square().mean(), "quiet": (quiet + 1).square().mean()}


for i in range(40):
    with accelerator.accumulate(model):
        balanced.backward(losses_of(torch.randn(32, 6)))
        # before: accelerator.backward(sum(losses_of(...).values()))
        optimizer.step()
        optimizer.zero_grad()
    if i % 10 == 9:
        found = balanced.log(step=i)
        print(f"batch {i}: loss of 'loud' {found['gaba/losses/loud']:.1f}, ", end="")
        print(f"weight {found['gaba/weights/loud']:.4f}, imbalance {found['gaba/imbalance']:.2f}")

with tempfile.TemporaryDirectory() as folder:
    accelerator.save_state(folder)
    before = balancer.multipliers
    balancer.reset()
    accelerator.load_state(folder)
print("multipliers after loading equal:", balancer.multipliers == before)
