"""Weights on the simplex shorten the update: SGD slows down, Adam divides the factor out.

The same noisy two-task regression, with one loss 500 times the other, under scale="simplex" and
scale="sum". It prints how far each task's parameters are from the truth after 400 steps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

import gaba


def distances(scale: Literal["simplex", "sum"], adam: bool) -> list[float]:
    torch.manual_seed(0)
    truth = torch.randn(4, 2)
    net = nn.Linear(4, 2, bias=False)
    parameters = net.parameters()
    optimizer = (
        torch.optim.Adam(parameters, lr=2e-2) if adam else torch.optim.SGD(parameters, lr=1e-4)
    )
    balancer = gaba.Balancer(["loud", "quiet"], shared=net, scale=scale, limit=1_000)
    for _ in range(400):
        inputs = torch.randn(32, 4)
        targets = inputs @ truth + 0.5 * torch.randn(32, 2)
        errors = (net(inputs) - targets).square().mean(0)
        balancer.backward({"loud": 500 * errors[0], "quiet": errors[1]})
        optimizer.step()
        optimizer.zero_grad()
    return (net.weight.T - truth).norm(dim=0).tolist()


for adam in (False, True):
    for scale in ("simplex", "sum"):
        loud, quiet = distances(scale, adam)
        optimizer = "Adam" if adam else "SGD"
        print(f"{optimizer:4} scale={scale:7}  loud {loud:.3f}, quiet {quiet:.3f} from the truth")
