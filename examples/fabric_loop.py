"""A loop with Fabric: fabric.backward of the balanced loss, in bfloat16, saved and loaded."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn

import gaba
from gaba.integrations.lightning import FabricBalancer

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Net(nn.Module):
    """Two tasks on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.heads = nn.ModuleDict({"loud": nn.Linear(16, 1), "quiet": nn.Linear(16, 1)})

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The losses by task."""
        features = self.trunk(inputs)
        scales = {"loud": 30.0, "quiet": 1.0}
        return {
            name: scales[name] * (head(features) - 1).square().mean()
            for name, head in self.heads.items()
        }


torch.manual_seed(0)
fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
net = Net()
balanced = FabricBalancer(fabric, gaba.Balancer(tasks=["loud", "quiet"], shared=net.trunk))
model, optimizer = fabric.setup(net, torch.optim.Adam(net.parameters(), lr=1e-2))

for i in range(40):
    losses = model(torch.randn(32, 6))
    balanced.backward(losses)  # before: fabric.backward(sum(losses.values()))
    optimizer.step()
    optimizer.zero_grad()
    if i % 10 == 9:
        found = balanced.log(step=i)
        weight, imbalance = found["gaba/weights/loud"], found["gaba/imbalance"]
        print(f"step {i}: weight of 'loud' {weight:.4f}, imbalance {imbalance:.2f}")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "checkpoint.pt")
    fabric.save(path, {"model": model, "optimizer": optimizer, "balancer": balanced.balancer})
    again = gaba.Balancer(tasks=["loud", "quiet"], shared=net.trunk)
    fabric.load(path, {"balancer": again})
print("multipliers after loading equal:", again.multipliers == balanced.balancer.multipliers)
