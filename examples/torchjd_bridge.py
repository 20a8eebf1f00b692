"""A method of TorchJD by its name, a weighting of its own, and a rule of ours in its engine."""

from __future__ import annotations

import torch
from torch import nn
from torchjd.aggregation import ConFIG, MGDAWeighting
from torchjd.autogram import Engine

import gaba
from gaba.integrations.torchjd import FromTorchJD, TheirState, ToTorchJD

torch.manual_seed(0)
trunk = nn.Linear(4, 3)
inputs = torch.randn(16, 4)
names = ["a", "b", "c"]


def losses() -> torch.Tensor:
    return (trunk(inputs) - torch.tensor([1.0, -1.0, 5.0])).square().mean(0)


def show(what: str, weights: torch.Tensor) -> None:
    print(f"{what}:", *(f"{weight:.4f}" for weight in weights.tolist()))


# by name: TorchJD's weights and TorchJD's length of the update
balancer = gaba.Balancer(names, trunk, method="upgrad")
step = balancer.backward(dict(zip(names, losses(), strict=True)))
show("UPGrad by its name", step.weights)

# an object of yours, with any settings; you choose the scale
method = gaba.Method(FromTorchJD(MGDAWeighting(epsilon=1e-5)), scale="sum")
balancer = gaba.Balancer(names, trunk, method)
step = balancer.backward(dict(zip(names, losses(), strict=True)))
show("MGDA in our balancer", step.weights)

# TorchJD's ConFIG takes a Jacobian; the bridge gives it a root of the Gramian
rule = FromTorchJD(ConFIG())
state: TheirState = rule.init(len(names))
assert step.gramian is not None
show("ConFIG from the same Gramian", rule(step.gramian))

# one of our rules in TorchJD's engine
weighting = ToTorchJD("equal-share")
engine = Engine(trunk, batch_dim=None)
values = losses()
weights = weighting(engine.compute_gramian(values))
values.backward(weights)
show("equal shares in TorchJD's engine", weights)
