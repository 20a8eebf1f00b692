"""A physics-informed network for Helmholtz' equation, against an exact solution of two scales.

Δu + k²u = f on the square −1 ≤ x, y ≤ 1 with k = 1 and u = 0 on its boundary; f is that of
u = sin(πx) sin(4πy). It is the third problem of Bischof and Kraus, Multi-Objective Loss Balancing
for Physics-Informed Deep Learning, arXiv 2110.09813 (ReLoBRaLo), after Wang, Teng, Perdikaris
(Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed Neural Networks, SIAM
Journal on Scientific Computing 43, 2021). f is 167 times as large as u, so the residual outweighs
the boundary. The network is smaller than theirs, and the four sides are one task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problems._pinn import Box, Equation, Jet, Pinn, square

BOX: Box = ((-1, 1), (-1, 1))
WAVENUMBER = 1.0
WAVES = (1, 4)
"""Full waves of the solution along x and along y."""


def solution(points: Tensor) -> Tensor:
    """The solution u = sin(πx) sin(4πy) at points (N, 2), (N,)."""
    x, y = points.unbind(dim=1)
    return torch.sin(WAVES[0] * math.pi * x) * torch.sin(WAVES[1] * math.pi * y)


def source(points: Tensor) -> Tensor:
    """The right side f = (k² − π² − 16π²) sin(πx) sin(4πy), (N,)."""
    squares = math.pi**2 * (WAVES[0] ** 2 + WAVES[1] ** 2)
    return (WAVENUMBER**2 - squares) * solution(points)


@final
class HelmholtzEquation(Equation):
    """Helmholtz' equation in (x, y), with 0 on the boundary."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary")
    coefficients: ClassVar[tuple[float, float]] = (1.0, 1.0)

    def points(self, generator: torch.Generator, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Inside and on the four sides in turn."""
        return square(generator, counts, BOX)

    def truth(self, points: Tensor) -> Tensor:
        """The solution."""
        return solution(points)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(Δu + k²u − f)² inside, u² on the boundary."""
        jet = jets["residual"]
        residual = jet.second + WAVENUMBER**2 * jet.u - source(points["residual"])
        return {"residual": residual.square(), "boundary": jets["boundary"].u.square()}


@final
class Helmholtz(Pinn):
    """The equation's residual and the values on the boundary, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 on
    the boundary. Judged by the relative L2 error of u inside, and by the root mean squared error on
    the boundary, where the reference is the root mean square of the solution inside, as it is 0 on
    the boundary.
    """

    name = "pinn-helmholtz"
    equation = HelmholtzEquation
    tasks: tuple[str, ...] = HelmholtzEquation.tasks
    zero = ("boundary",)
