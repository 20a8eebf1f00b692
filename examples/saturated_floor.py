"""The published algorithm at a norm ratio of 500: it hits its floor and becomes a fixed weighting.

The diagnosis says so, from the record of the run. The library's own default, which has no floor, is
shown beside it.
"""

from __future__ import annotations

import torch

import gaba

for method in ("paper", "gaba"):
    theta = torch.nn.Parameter(torch.ones(2))
    balancer = gaba.Balancer(["rul", "health"], [theta], method=method)
    for _ in range(1000):
        balancer.backward({"rul": 5.0 * theta[0], "health": 0.01 * theta[1]})
        theta.grad = None
    print(f"== {method}: {balancer.diagnose()}")
