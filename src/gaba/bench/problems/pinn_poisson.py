"""A physics-informed network for Poisson's equation, against an exact solution with fine detail.

Δu = f on the square −1 ≤ x, y ≤ 1 with u given on its boundary; f and the boundary's values are
those of u = cos(πx/2) sin(πy/2) + 0.1 sin(3πx) sin(3πy). The second part is a tenth of the first in
u, and over three times as large in f: so the residual outweighs the boundary, as Wang, Teng,
Perdikaris describe (Understanding and Mitigating Gradient Flow Pathologies in Physics-Informed
Neural Networks, SIAM Journal on Scientific Computing 43, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problems._pinn import Box, Equation, Jet, Pinn, inside, uniform

BOX: Box = ((-1, 1), (-1, 1))
SLOW, FAST, DETAIL = math.pi / 2, 3 * math.pi, 0.1


def _parts(points: Tensor) -> tuple[Tensor, Tensor]:
    x, y = points.unbind(dim=1)
    coarse = torch.cos(SLOW * x) * torch.sin(SLOW * y)
    return coarse, DETAIL * torch.sin(FAST * x) * torch.sin(FAST * y)


def solution(points: Tensor) -> Tensor:
    """The solution u = cos(πx/2) sin(πy/2) + 0.1 sin(3πx) sin(3πy) at points (N, 2), (N,)."""
    coarse, fine = _parts(points)
    return coarse + fine


def source(points: Tensor) -> Tensor:
    """The right side f = −(π²/2) cos(πx/2) sin(πy/2) − 1.8π² sin(3πx) sin(3πy), (N,)."""
    coarse, fine = _parts(points)
    return -2 * SLOW**2 * coarse - 2 * FAST**2 * fine


@final
class PoissonEquation(Equation):
    """Poisson's equation in (x, y), with values on the boundary."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary")
    coefficients: ClassVar[tuple[float, float]] = (1.0, 1.0)

    def points(self, generator: torch.Generator, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Inside and on the four sides in turn."""
        boundary = counts["boundary"]
        within = inside(generator, counts["residual"], BOX)
        along = uniform(generator, boundary, *BOX[0])
        side = torch.tensor([-1.0, 1.0]).repeat_interleave(2).repeat(boundary // 4)
        upright = (torch.arange(boundary) % 2).bool()
        edge = torch.where(upright, side, along), torch.where(upright, along, side)
        return {"residual": within, "boundary": torch.stack(edge, dim=1)}

    def truth(self, points: Tensor) -> Tensor:
        """The solution."""
        return solution(points)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(Δu − f)² inside, (u − g)² on the boundary."""
        residual = jets["residual"].second - source(points["residual"])
        edge = jets["boundary"].u - solution(points["boundary"])
        return {"residual": residual.square(), "boundary": edge.square()}


@final
class Poisson(Pinn):
    """The equation's residual and the values on the boundary, by a tanh network.

    A perceptron 2→32→32→32→1, all of it shared; every batch has new points, 256 inside and 64 on
    the boundary. Judged by the relative L2 error of u inside, and by the root mean squared error on
    the boundary, where the reference is the root mean square of the solution.
    """

    name = "pinn-poisson"
    equation = PoissonEquation
    tasks: tuple[str, ...] = PoissonEquation.tasks
