"""A physics-informed network for Kovasznay's flow, an exact solution of Navier and Stokes.

u·∇u + ∇p = ν Δu and ∇·u = 0 for the velocity (u, v) and the pressure p on −½ ≤ x ≤ 1, −½ ≤ y ≤ 3/2,
with ν = 1/40 and all three given on the boundary. The solution is u = 1 − e^(λx) cos 2πy,
v = λ/(2π) e^(λx) sin 2πy, p = ½ (1 − e^(2λx)) with λ = 1/(2ν) − √(1/(4ν²) + 4π²): Kovasznay,
Laminar flow behind a two-dimensional grid, Proceedings of the Cambridge Philosophical Society 44,
1948. Domain, Reynolds number and both losses are those of Liu, Chu, Thuerey, ConFIG: Towards
Conflict-free Training of Physics Informed Neural Networks, arXiv 2408.11104: the residual is the
sum of three squares, of both momenta and of continuity. The network is smaller than theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.bench.problems._pinn import Box, Equation, Jet, Pinn, square

BOX: Box = ((-0.5, 1.0), (-0.5, 1.5))
VISCOSITY = 1 / 40
DECAY = 1 / (2 * VISCOSITY) - math.sqrt(1 / (4 * VISCOSITY**2) + 4 * math.pi**2)
"""λ, about −0.96."""


def solution(points: Tensor) -> Tensor:
    """Velocities and pressure (u, v, p) at points (N, 2), (N, 3)."""
    x, y = points.unbind(dim=1)
    fade, angle = torch.exp(DECAY * x), 2 * math.pi * y
    u = 1 - fade * torch.cos(angle)
    v = DECAY / (2 * math.pi) * fade * torch.sin(angle)
    return torch.stack([u, v, (1 - fade.square()) / 2], dim=1)


@final
class KovasznayEquation(Equation):
    """Navier's and Stokes' equations in (x, y), at rest in time, with values on the boundary."""

    tasks: ClassVar[tuple[str, ...]] = ("residual", "boundary")
    coefficients: ClassVar[tuple[float, float]] = (1.0, 1.0)
    components: ClassVar[int] = 3

    def points(self, generator: torch.Generator, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Inside and on the four sides in turn."""
        return square(generator, counts, BOX)

    def truth(self, points: Tensor) -> Tensor:
        """The solution."""
        return solution(points)

    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of three squared residuals inside, the mean of three squared errors outside."""
        jet = jets["residual"]
        u, v, _ = jet.u.unbind(dim=1)
        gradient = torch.stack([jet.p[:, 2], jet.q[:, 2]], dim=1)
        carried = u[:, None] * jet.p[:, :2] + v[:, None] * jet.q[:, :2]
        momenta = carried + gradient - VISCOSITY * jet.second[:, :2]
        continuity = jet.p[:, 0] + jet.q[:, 1]
        wrong = jets["boundary"].u - solution(points["boundary"])
        return {
            "residual": momenta.square().sum(dim=1) + continuity.square(),
            "boundary": wrong.square().mean(dim=1),
        }


@final
class Kovasznay(Pinn):
    """The equations' residual and the values on the boundary, by a tanh network.

    A perceptron 2→32→32→32→3, all of it shared; every batch has new points, 256 inside and 64 on
    the boundary. Judged by the relative L2 error of (u, v, p) inside, and by the root mean squared
    error on the boundary, where the reference is the root mean square of the solution.
    """

    name = "pinn-kovasznay"
    equation = KovasznayEquation
    tasks: tuple[str, ...] = KovasznayEquation.tasks
