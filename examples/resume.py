"""Stop, save, load, continue: the balancer's state belongs in the checkpoint, like the model's.

Twenty steps at once, and ten plus ten with a checkpoint in between, give the same parameters and
multipliers, bit for bit.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import gaba


class Net(nn.Module):
    """Two tasks on one trunk; the balancer is a part of the module, so state_dict() has it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 12)
        self.heads = nn.ModuleDict({"a": nn.Linear(12, 1), "b": nn.Linear(12, 1)})
        self.balancer = gaba.Balancer(tasks=["a", "b"], shared=self.trunk)


def train(net: Net, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for i in steps:
        inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(i))
        features = net.trunk(inputs)
        losses = {
            "a": 100 * (net.heads["a"](features) - 1).square().mean(),
            "b": net.heads["b"](features).square().mean(),
        }
        net.balancer.backward(losses)
        optimizer.step()
        optimizer.zero_grad()


def make() -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net()
    return net, torch.optim.Adam(net.parameters(), lr=1e-2)


through, optimizer = make()
train(through, optimizer, range(20))

first, optimizer = make()
train(first, optimizer, range(10))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "checkpoint.pt")
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, path)
    second, optimizer = make()
    saved = torch.load(path)
second.load_state_dict(saved["net"])
optimizer.load_state_dict(saved["optimizer"])
train(second, optimizer, range(10, 20))

same = all(
    torch.equal(a, b) for a, b in zip(through.parameters(), second.parameters(), strict=True)
)
same = same and through.balancer.multipliers == second.balancer.multipliers
print("multipliers at once:", through.balancer.multipliers)
print("multipliers resumed:", second.balancer.multipliers)
print("parameters and multipliers equal:", same)
