"""A physics-informed network for the Klein-Gordon equation, against a solution that oscillates.

u_tt − u_xx + u³ = f on 0 ≤ t, x ≤ 1 with u(0, x) = x, u_t(0, x) = 0, and u given at x = 0 and at
x = 1; f and the values are those of u = x cos(5πt) + (tx)³. The set-up is that of Wang, Teng,
Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural
Networks, SIAM Journal on Scientific Computing 43, 2021, with α = −1, β = 0, γ = 1 and k = 3. Both
conditions at the start are one task, as there. The network is smaller than theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problems._pinn import Box, Equation, Jet, Pinn, strip

BOX: Box = ((0, 1), (0, 1))
FREQUENCY = 5 * math.pi


def solution(points: Tensor) -> Tensor:
    """The solution u = x cos(5πt) + (tx)³ at points (t, x) of (N, 2), (N,)."""
    t, x = points.unbind(dim=1)
    return x * torch.cos(FREQUENCY * t) + (t * x) ** 3


def source(points: Tensor) -> Tensor:
    """The right side f = −25π² x cos(5πt) + 6tx³ − 6t³x + u³, (N,)."""
    t, x = points.unbind(dim=1)
    waves = -(FREQUENCY**2) * x * torch.cos(FREQUENCY * t) + 6 * t * x**3 - 6 * t**3 * x
    return waves + solution(points) ** 3


@final
class KleinGordonEquation(Equation):
    """The Klein-Gordon equation in (t, x), with conditions at the start and on both sides."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary", "initial")
    coefficients: ClassVar[tuple[float, float]] = (1.0, -1.0)

    def points(self, generator: torch.Generator, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Inside, on the two sides in turn, at the start."""
        return strip(generator, counts, BOX)

    def truth(self, points: Tensor) -> Tensor:
        """The solution."""
        return solution(points)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(u_tt − u_xx + u³ − f)², (u − g)², (u − x)² + u_t²."""
        within, edge, start = (jets[task] for task in self.tasks)
        residual = within.second + within.u**3 - source(points["residual"])
        return {
            "residual": residual.square(),
            "boundary": (edge.u - solution(points["boundary"])).square(),
            "initial": (start.u - points["initial"][:, 1]).square() + start.p.square(),
        }


@final
class KleinGordon(Pinn):
    """The equation's residual, the boundary and the initial conditions, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 for
    each condition. Judged by the relative L2 error of u inside, and by the root mean squared error
    of u on the boundary and at the start, where the reference is the root mean square of the
    solution there.
    """

    name = "pinn-klein-gordon"
    equation = KleinGordonEquation
    tasks: tuple[str, ...] = KleinGordonEquation.tasks
