"""A rule and a stabiliser of your own: two frozen dataclasses.

The rule: every task has a weight that it never falls below, and inverse norms share the rest. The
stabiliser: norms in powers of two, so that multipliers seldom move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

import gaba
from gaba.pieces import Seen
from gaba.rules import Rule
from gaba.stabilisers import Stabiliser


@final
@dataclass(frozen=True)
class AtLeast(Rule):
    """w_k = l_k + (1 − Σl) · (1/g_k) / Σ(1/g), which sums to 1 and is never below l_k."""

    least: tuple[float, ...]

    def update(self, told: Seen, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """Weights (K,) from norms (K,), which are NaN for a missing task; no state."""
        least = torch.tensor(self.least).to(told.norms)
        inverse = 1 / told.norms
        return least + (1 - least.sum()) * inverse / inverse.nansum(), state


@final
@dataclass(frozen=True)
class PowersOfTwo(Stabiliser):
    """Rounds to a power of two; there is nothing to remember."""

    def update(self, told: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """The rounded norms (K,), and no state."""
        return told.log2().round().exp2(), state


torch.manual_seed(0)
trunk = torch.nn.Linear(4, 2)
method = gaba.Method(AtLeast((0.2, 0.1)), believe=PowersOfTwo(), scale="simplex")
balancer = gaba.Balancer(["a", "b"], trunk, method)
for scale in (1.0, 1.1, 1.9, 1000.0):
    outputs = trunk(torch.ones(8, 4)).mean(0)
    balancer.backward({"a": scale * outputs[0], "b": outputs[1]})
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in balancer.weights.items())
    print(f"'a' pulls {scale:6.1f} times as hard: {weights}")
