"""A measurement of your own: the exact one, which also tells how far two tasks conflict.

The cosine between the gradients of two tasks is 1 where they agree, and below 0 where one undoes
the work of the other. The Gramian has it, and is asked for here whatever the weighting needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch

import gaba
from gaba.measurement import ExactNorms, Measurement, Observation, TaskGradients

if TYPE_CHECKING:
    from gaba.autograd.graph import LossGraph


@final
@dataclass(frozen=True)
class WithCosine(Measurement):
    """Exact norms; prints the cosine of the first two tasks, and what the first one reaches."""

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Measure with the Gramian, and print."""
        seen = ExactNorms()(graph, state, gramian=True, gradients=gradients)
        assert seen.gramian is not None
        cosine = seen.gramian[0, 1] / (seen.norms[0] * seen.norms[1])
        found: TaskGradients | None = seen.gradients
        reached = "" if found is None else sum(gradient is not None for gradient in found.of[0])
        total = "" if found is None else len(found.leaves)
        print(f"cosine {float(cosine):+.3f}, 'a' reaches {reached} of {total} parameters")
        return seen


torch.manual_seed(0)
trunk = torch.nn.Linear(4, 8)
heads = torch.nn.ModuleDict({name: torch.nn.Linear(8, 1) for name in ("a", "b")})
balancer = gaba.Balancer(tasks=["a", "b"], shared=trunk, measurement=WithCosine())
for _ in range(5):
    features = trunk(torch.randn(32, 4))
    balancer.backward({name: heads[name](features).square().mean() for name in heads})
