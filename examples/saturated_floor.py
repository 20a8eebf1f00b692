"""The published preset at a norm ratio of 500: it hits its floor and becomes a fixed weighting.

The diagnosis says so, from the record of the run. The library's own defaults, which have no floor,
are shown beside it.
"""

from __future__ import annotations

import torch

import gaba
from gaba.record.diagnosis import diagnose

tasks = ["rul", "health"]
for name, make in {"paper": gaba.Balancer.paper, "defaults": gaba.Balancer}.items():
    theta = torch.nn.Parameter(torch.ones(2))
    balancer = make(tasks, [theta])
    for _ in range(1000):
        balancer.backward({"rul": 5.0 * theta[0], "health": 0.01 * theta[1]})
        theta.grad = None
    print(f"== {name}: {diagnose(balancer.history)}")
