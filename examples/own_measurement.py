"""A measurement of your own: the exact one, which also says how far two tasks conflict.

The cosine between the gradients of two tasks is 1 where they agree, and below 0 where one undoes
the work of the other. The Gramian has it, so this asks for it whatever the rule needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch

import gaba
from gaba.measurement import ExactNorms, Measurement, Observation, Request, TaskGradients


@final
@dataclass(frozen=True)
class WithCosine(Measurement):
    """Exact norms; prints the cosine of the first two tasks, and what the first one reaches."""

    def update(self, told: Request, state: tuple[()]) -> tuple[Observation, tuple[()]]:
        """Measure with the Gramian, and print."""
        seen, state = ExactNorms().update(replace(told, gramian=True), state)
        assert seen.gramian is not None
        cosine = seen.gramian[0, 1] / (seen.norms[0] * seen.norms[1])
        found: TaskGradients | None = seen.gradients
        reached = "" if found is None else sum(gradient is not None for gradient in found.of[0])
        total = "" if found is None else len(found.leaves)
        print(f"cosine {float(cosine):+.3f}, 'a' reaches {reached} of {total} parameters")
        return seen, state


torch.manual_seed(0)
trunk = torch.nn.Linear(4, 8)
heads = torch.nn.ModuleDict({name: torch.nn.Linear(8, 1) for name in ("a", "b")})
method = gaba.methods.get("gaba").replace(measure=WithCosine())
balancer = gaba.Balancer(["a", "b"], trunk, method)
for _ in range(5):
    features = trunk(torch.randn(32, 4))
    balancer.backward({name: heads[name](features).square().mean() for name in heads})
