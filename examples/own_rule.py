"""A weighting and a stabiliser of your own: two frozen dataclasses.

The rule: no task may have more than twice the weight of another, whatever the norms say. The
stabiliser: norms in steps of powers of two, so that weights move seldom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

import gaba
from gaba.stabilisers import Stabiliser
from gaba.weighting import InverseNorm, Weighting

if TYPE_CHECKING:
    from gaba._array import Array


@final
@dataclass(frozen=True)
class Within(Weighting):
    """Inverse norms, with the largest weight at most ``ratio`` times the smallest."""

    ratio: float = 2.0

    def __call__(self, measured: Array, /) -> Array:
        """Weights (K,) from norms (K,), of NumPy or of torch."""
        weights: Any = InverseNorm()(measured)
        weights = weights.clip(weights.max() / self.ratio)  # raises the small ones
        return weights / weights.sum()


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
    tasks=["a", "b"], shared=trunk, weighting=Within(2.0), norm_stabiliser=PowersOfTwo()
)
for scale in (1.0, 1.1, 1.9, 50.0):
    outputs = trunk(torch.ones(8, 4)).mean(0)
    balancer.backward({"a": scale * outputs[0], "b": outputs[1]})
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in balancer.weights.items())
    print(f"'a' pulls {scale:4.1f} times as hard: {weights}")
