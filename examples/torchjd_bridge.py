"""A weighting of TorchJD in our balancer, and a rule of ours in TorchJD's engine."""

from __future__ import annotations

import torch
from torch import nn
from torchjd.aggregation import MGDAWeighting
from torchjd.autogram import Engine

import gaba
from gaba.integrations.torchjd import FromTorchJD, ToTorchJD

torch.manual_seed(0)
trunk = nn.Linear(4, 3)
inputs = torch.randn(16, 4)


def losses() -> torch.Tensor:
    return (trunk(inputs) - torch.tensor([1.0, -1.0, 5.0])).square().mean(0)


names = ["a", "b", "c"]
balancer = gaba.Balancer(names, shared=trunk, weighting=FromTorchJD(MGDAWeighting()))
step = balancer.backward(dict(zip(names, losses(), strict=True)))
print("MGDA of TorchJD in our balancer:", *(f"{weight:.4f}" for weight in step.weights.tolist()))

weighting = ToTorchJD("equal-share")
engine = Engine(trunk, batch_dim=None)
values = losses()
weights = weighting(engine.compute_gramian(values))
values.backward(weights)
print("equal shares in TorchJD's engine:", *(f"{weight:.4f}" for weight in weights.tolist()))
