"""A weighting and a stabiliser of your own: two frozen dataclasses.

The rule: every task has a weight of its own that it never falls below, and the rest is shared by
inverse norms. The stabiliser: norms in powers of two, so that weights move seldom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

import gaba
from gaba.stabilisers import Stabiliser
from gaba.rules import InverseNorm, Weighting

if TYPE_CHECKING:
    from gaba.arrays import Array


@final
@dataclass(frozen=True)
class AtLeast(Weighting):
    """λ_k = m_k + (1 − Σm) · (1/g_k) / Σ(1/g), which is on the simplex and never below m_k."""

    least: tuple[float, ...]

    def __call__(self, measured: Array, /) -> Array:
        """Weights (K,) from norms (K,), of NumPy or of torch."""
        weights: Any = InverseNorm()(measured) * (1 - sum(self.least))
        for k, least in enumerate(self.least):
            weights[k] += least
        return weights

    def of(self, tasks: Sequence[int], /) -> AtLeast:
        """The rule for a step that has only these of its tasks."""
        return AtLeast(tuple(self.least[k] for k in tasks))


@final
@dataclass(frozen=True)
class PowersOfTwo(Stabiliser[tuple[()]]):
    """Rounds to a power of two; there is nothing to remember."""

    def init(self, n_tasks: int) -> tuple[()]:
        """No state."""
        return ()

    def update(
        self, value: Tensor, state: tuple[()], present: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]]:
        """The rounded norms (K,), and no state."""
        return value.log2().round().exp2(), state


torch.manual_seed(0)
trunk = torch.nn.Linear(4, 2)
balancer = gaba.Balancer(
    tasks=["a", "b"],
    shared=trunk,
    weighting=AtLeast((0.2, 0.1)),
    norm_stabiliser=PowersOfTwo(),
)
for scale in (1.0, 1.1, 1.9, 1000.0):
    outputs = trunk(torch.ones(8, 4)).mean(0)
    balancer.backward({"a": scale * outputs[0], "b": outputs[1]})
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in balancer.weights.items())
    print(f"'a' pulls {scale:6.1f} times as hard: {weights}")
