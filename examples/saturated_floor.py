"""The published algorithm at a norm ratio of 500: it hits its floor and becomes a fixed weighting.

The diagnosis says so, from the record of the run. The library's own default, which has no floor, is
shown beside it: its limit of 64 leaves part of the way, and the diagnosis says which limit does it.
"""

from __future__ import annotations

import torch

import gaba

tasks = ["rul", "health"]
theta = torch.nn.Parameter(torch.ones(2))
balancers = {
    "paper": gaba.Balancer(tasks, [theta], method="paper"),
    "gaba": gaba.Balancer(tasks, [theta]),
    "gaba, limit=1_000": gaba.Balancer(tasks, [theta], limit=1_000),
}
for name, balancer in balancers.items():
    for _ in range(1000):
        balancer.backward({"rul": 5.0 * theta[0], "health": 0.01 * theta[1]})
        theta.grad = None
    print(f"== {name}: {balancer.diagnose()}")
